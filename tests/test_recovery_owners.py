"""Two owners give their tasks the same ids, and the gateway is killed and replaced under load: each gets its own, once."""

import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import websocket

from tests.effects import check_story, effects, said_of
from tests.harness import FINAL, Server, WsClient, wait_until
from tests.tokenfile import TokenFile, bearer

OWNERS = {name: f"{name}-" + name[0] * 40 for name in ("anna", "bert")}
COUNT = 150


@pytest.fixture
def server(start_server: Callable[..., Server], tmp_path: Path) -> Server:
    """Few slots, so that tasks wait, and are placed ahead of them."""
    tokens = TokenFile(tmp_path / "tokens.toml")
    for name, token in OWNERS.items():
        tokens.add(token, name)
    flags = ("--tasks", "tests.sample_tasks", "--workers", "2", "--concurrency", "5", "--tokens", str(tokens.path), "--rate-failures", "0")
    return start_server(*flags)


def listen(server: Server, owner: str, functions: dict[str, str], most: int) -> dict[str, list[Any]]:
    """Send every task of this owner, and listen until all are over, so many messages came, or the connection is lost; what was said of
    those that are over."""
    stories: dict[str, list[Any]] = {}
    with suppress(websocket.WebSocketException, OSError), WsClient(server.ws_url, header=bearer(OWNERS[owner])) as client:
        for task_id, function in functions.items():
            client.send({"id": task_id, "function": function, "args": {"note": owner} if function == "mark" else {}})
        while len(stories) < len(functions) and len(client.messages) < most:
            message = client.receive(30)
            assert "event" in message, message
            if message["event"] in FINAL:
                stories[message["id"]] = said_of(client.messages, message["id"])
    return stories


def disturb(server: Server, chance: random.Random) -> None:
    """The gateway is killed, or replaced."""
    pid = server.gateway_pid()
    if chance.random() < 0.5:
        os.kill(pid, signal.SIGKILL)
    else:
        server.send_signal(signal.SIGHUP)
    wait_until(lambda: server.gateway_pid() not in (0, pid), 20, server.log)


def test_the_same_id_of_two_owners_is_two_tasks_whatever_becomes_of_the_gateway(server: Server) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    chance = random.Random(seed)
    functions = {f"t{number}": chance.choice(("mark", "mark", "second_time")) for number in range(COUNT)}
    for _ in range(4):
        for owner in OWNERS:
            listen(server, owner, functions, chance.randint(1, 200))
        disturb(server, chance)
    for owner in OWNERS:
        stories: dict[str, list[Any]] = {}
        while len(stories) < COUNT:
            stories = listen(server, owner, functions, 100 * COUNT)
        for story in stories.values():
            check_story(story)
            assert story[-1]["event"] == "succeeded", story
            assert "~" not in str(story)
    ran = Counter((effect.id, effect.note) for effect in effects(server) if functions[effect.id] == "mark")
    assert ran == {(task_id, owner): 1 for task_id, function in functions.items() if function == "mark" for owner in OWNERS}
