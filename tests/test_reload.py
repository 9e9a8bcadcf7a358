"""HUP, with real servers: changed code is loaded, what runs goes on, whoever connects is let in, and what does not load changes nothing."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import websocket

from app.remote import Session
from app.remote.socket import Pace
from tests.effects import check_story, effects, open_gate, runs, said_of
from tests.harness import Process, Server, TextClient, WsClient, wait_until
from tests.test_recovery import story

Start = Callable[..., Server]
CODE = "from workers import task\n\n@task\ndef version() -> str:\n    return {!r}\n"
SAMPLES = ("--tasks", "tests.sample_tasks", "--workers", "2")


def hup(server: Process, outcome: str = "reload-done") -> None:
    """One reload, to its end."""
    before = server.log().count(outcome)
    server.send_signal(signal.SIGHUP)
    wait_until(lambda: server.log().count(outcome) > before, 30, server.log)


def version(server: Server) -> Any:
    with TextClient(server.text_address) as client:
        return client.ask({"function": "version"})


@pytest.fixture
def house(start_server: Start, tmp_path: Path) -> Server:
    """A server with a module of tasks and one of handlers, which lie in its directory."""
    write(tmp_path, "first")
    return start_server("--tasks", "mine", "--handler", "handlers", "--workers", "2", cwd=tmp_path)


def write(place: Path, text: str) -> None:
    """Code that answers with this text; of another length each time, since what was compiled is told from it by size and second."""
    (place / "mine.py").write_text(CODE.format(text))
    handlers = f"from app.gateway import on_message\n\n@on_message\ndef answer(ws, message):\n    ws.send({text!r} + message)\n"
    (place / "handlers.py").write_text(handlers)


def greeting(server: Server) -> Any:
    with WsClient(server.ws_url.removesuffix("ws")) as client:
        client.send("!")
        return client.receive()


def test_changed_tasks_and_handlers_are_loaded(house: Server, tmp_path: Path) -> None:
    before = {house.gateway_pid(), *house.worker_pids()}
    assert (version(house), greeting(house)) == ("first", "first!")
    write(tmp_path, "and the second")
    assert (version(house), greeting(house)) == ("first", "first!")
    hup(house)
    wait_until(lambda: not before & house.tree(), 10, house.log)
    assert (version(house), greeting(house)) == ("and the second", "and the second!")
    assert len(house.worker_pids()) == 2
    assert "Traceback" not in house.log()


@pytest.mark.parametrize("module", ["mine.py", "handlers.py"])
def test_code_that_does_not_load_leaves_everything_as_it_was(house: Server, tmp_path: Path, module: str) -> None:
    before = [house.gateway_pid(), *house.worker_pids()]
    write(tmp_path, "and the second")
    good = (tmp_path / module).read_text()
    (tmp_path / module).write_text("import nosuch\n")
    with WsClient(house.ws_url) as client:
        hup(house, "reload-failed")
        assert client.ask({"ping": 1}) == {"pong": 1}
        wait_until(lambda: len(house.tree()) == 4, 10, house.describe)
        assert [house.gateway_pid(), *house.worker_pids()] == before
        assert version(house) == "first"
        (tmp_path / module).write_text(good)
        hup(house)
    wait_until(lambda: version(house) == "and the second", 10, house.log)


def test_a_task_spans_three_reloads_and_a_session_does_not_notice(start_server: Start, gate: Path) -> None:
    """Its worker outlives `--graceful`, which is for TERM."""
    server = start_server(*SAMPLES, "--graceful", "0.1")
    with Session(server.ws_url, pace=Pace(first_delay=0.1)) as session:
        task = session.submit("gated", [str(gate)])
        (first,) = wait_until(lambda: effects(server, task.id))
        for _ in range(3):
            hup(server)
            wait_until(lambda: session.call("mark", timeout=10) in server.worker_pids())  # the session is back
            assert first.pid in server.tree()
        wait_until(lambda: len(server.tree()) == 5, 10, server.describe)
        open_gate(gate)
        assert task.result(10) == first.pid
        check_story(list(task.events(1)))
    assert set(runs(server).values()) == {1}
    wait_until(lambda: first.pid not in server.tree(), 10, server.log)


def test_what_ends_while_no_gateway_is_there_is_reported(start_server: Start, gate: Path) -> None:
    """Gates are opened all the time, so that some tasks end while the journal changes hands, and the workers that had them leave."""
    server = start_server(*SAMPLES)
    ids = [f"t{number}" for number in range(300)]
    with WsClient(server.ws_url) as client:
        for number, task_id in enumerate(ids):
            client.send({"id": task_id, "function": "mark", "args": ["", 0.005 * number], "events": "final"})
        wait_until(lambda: len(effects(server)) > 20)
        hup(server)
        hup(server)
    assert {tuple(event["event"] for event in story(server, task_id)[-1:]) for task_id in ids} == {("succeeded",)}
    assert runs(server) == dict.fromkeys(ids, 1)


def test_tasks_that_are_not_durable_are_handed_over_all_the_same(start_server: Start, tmp_path: Path, gate: Path) -> None:
    code = (
        "from collections.abc import Iterator\nfrom tests.sample_tasks import effect, wait_for\nfrom workers import task\n\n"
        "@task(durable=False)\ndef volatile(gate: str) -> Iterator[int]:\n    effect()\n    yield 1\n    wait_for(gate)\n    yield 2\n"
    )
    (tmp_path / "mine.py").write_text(code)
    server = start_server("--tasks", "mine", "--workers", "1", "--concurrency", "4", cwd=tmp_path)
    ids = ["t1", "t2", "t3", "t4", "t5", "t6"]
    with WsClient(server.ws_url) as client:
        for task_id in ids:
            client.send({"id": task_id, "function": "volatile", "args": [str(gate)]})
        wait_until(lambda: len(effects(server)) >= 3)  # the others wait
        hup(server)
    assert "written-down: 6 tasks" in server.log()
    open_gate(gate)
    for task_id in ids:
        events = story(server, task_id)
        check_story(events)
        assert [event.get("value") for event in events if event["event"] == "output"] == [1, 2]
        with WsClient(server.ws_url) as client:  # as somebody does who was sent away before it was over
            client.send({"id": task_id, "function": "volatile", "args": [str(gate)]})
            client.final(task_id)
            assert said_of(client.messages, task_id) == events
    assert set(runs(server).values()) == {1}


def test_what_an_old_worker_still_runs_takes_no_place_from_the_new_one(start_server: Start, tmp_path: Path, gate: Path) -> None:
    server = start_server("--tasks", "tests.sample_tasks", "--workers", "1", "--concurrency", "4")
    with WsClient(server.ws_url) as client:
        for task_id in ("t1", "t2", "t3"):  # as many as one function may have
            client.send({"id": task_id, "function": "gated", "args": [str(gate)]})
        wait_until(lambda: len(effects(server)) == 3)
        hup(server)
    (tmp_path / "open").touch()
    with WsClient(server.ws_url) as client:
        assert client.ask({"id": "t4", "function": "gated", "args": [str(tmp_path / "open")], "events": "final"})["event"] == "succeeded"
    open_gate(gate)
    assert [story(server, task_id)[-1]["event"] for task_id in ("t1", "t2", "t3")] == ["succeeded"] * 3


def test_with_a_journal_in_memory_the_old_gateway_stays_until_its_tasks_have_ended(start_server: Start, gate: Path) -> None:
    server = start_server(*SAMPLES, "--durability", "off")
    old = server.gateway_pid()
    with WsClient(server.ws_url) as busy, WsClient(server.ws_url) as idle:
        busy.send({"id": "t1", "function": "gated", "args": [str(gate)]})
        wait_until(lambda: effects(server))
        hup(server)
        assert close_code(idle) == 1012
        with WsClient(server.ws_url) as other:
            other.send({"id": "t2", "function": "mark"})
            assert other.final("t2")["event"] == "succeeded"
        assert old in server.tree()
        open_gate(gate)
        assert busy.final("t1")["event"] == "succeeded"
        check_story(said_of(busy.messages, "t1"))
        assert close_code(busy) == 1012
    wait_until(lambda: old not in server.tree(), 10, server.log)
    assert runs(server) == {"t1": 1, "t2": 1}


def close_code(client: WsClient) -> int:
    client.socket.settimeout(10)
    opcode, frame = client.socket.recv_data()
    client.socket.shutdown()  # it answers a close frame, and leaves the socket open
    assert opcode == websocket.ABNF.OPCODE_CLOSE
    return int.from_bytes(frame[:2], "big")


def test_signals_in_quick_succession_come_to_one_reload_and_one_more(start_server: Start) -> None:
    server = start_server("--workers", "1")
    server.send_signal(signal.SIGHUP)
    wait_until(lambda: "reload-begins" in server.log())
    for _ in range(5):
        server.send_signal(signal.SIGHUP)
    wait_until(lambda: server.log().count("reload-done") == 2, 20, server.log)
    time.sleep(0.5)  # not for something to happen, but to see that nothing does
    assert server.log().count("reload-begins") == 2


@pytest.mark.parametrize(("number", "after"), [(signal.SIGTERM, 0.0), (signal.SIGTERM, 0.2), (signal.SIGTERM, 0.5), (signal.SIGKILL, 0.3)])
def test_an_end_at_any_moment_of_a_reload_leaves_nothing(start_server: Start, number: int, after: float) -> None:
    server = start_server("--workers", "1")
    server.send_signal(signal.SIGHUP)
    time.sleep(after)
    assert server.stop(number) == (0 if number == signal.SIGTERM else -number)


def test_usr1_ends_nobody(start_server: Start) -> None:
    """Also those who have no handler for it yet."""
    server = start_server("--workers", "2")
    before = server.tree()
    stop = threading.Event()

    def send() -> None:
        while not stop.wait(0.01):
            server.send_signal(signal.SIGUSR1)

    sender = threading.Thread(target=send)
    sender.start()
    os.kill(server.worker_pids()[0], signal.SIGKILL)
    hup(server)
    stop.set()
    sender.join()
    wait_until(lambda: len(server.tree()) == 4, 10, server.describe)
    assert server.tree() & before == {server.pid}
    assert server.log().count("alert=yes: process-exited") == server.log().count("ended: signal SIGKILL") == 1
    assert "ended: signal SIGUSR1" not in server.log()
