"""One's own gateway: plain blocking handlers, boundedly many at once, tasks handed off from them; and the example of the seed."""

import ast
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from app.errors import SettingsError, Unavailable
from app.gateway import call
from app.gateway.frames import CLOSE
from app.gateway.hooks import Hooks
from tests.harness import ROOT, Server, wait_until
from tests.rawclient import client_frame, text_frame
from tests.test_websocket import FLAGS, Front


@pytest.fixture(scope="module")
def front() -> Iterator[Front]:
    running = Server(*FLAGS)
    yield Front(running)
    running.clean()


def mails(server: Server) -> list[str]:
    """The mails that were delivered into the Maildir of this server."""
    return [path.read_text() for path in server.data_dir.rglob("new/*")]


def test_the_gateway_of_the_seed_mails_every_message_and_says_so(start_server: Callable[..., Server]) -> None:
    server = start_server("--handler", "examples.seed_gateway")
    front = Front(server)
    with ExitStack() as stack:
        clients = [stack.enter_context(front.connect()) for _ in range(3)]
        for number, client in enumerate(clients):
            client.send(text_frame(f"first of {number}"), text_frame("zweite über – 第二"))
        for client in clients:
            assert [client.message(), client.message()] == ["task complete"] * 2
    delivered = mails(server)
    assert len(delivered) == 6
    assert all(sum(f"first of {number}" in mail for mail in delivered) == 1 for number in range(3))


def test_the_gateway_of_the_seed_is_no_longer_than_the_original() -> None:
    source = (ROOT / "examples" / "seed_gateway.py").read_text()
    assert len(source.splitlines()) <= 20
    assert not any(isinstance(node, ast.AsyncFunctionDef | ast.Await) for node in ast.walk(ast.parse(source)))


def test_the_built_in_gateway_stays_at_ws(front: Front) -> None:
    with front.connect("/ws") as client:
        client.send(text_frame('{"function": "echo", "args": {"a": "b"}, "id": "x", "events": "final"}'))
        assert '"result":{"a":"b"}' in str(client.message())


def test_a_handler_gets_the_result_of_a_task_or_its_error(front: Front) -> None:
    with front.connect() as client:
        client.send(text_frame("task echo"))
        assert client.message() == "{'said': 'echo'}"
        client.send(text_frame("task nothing_of_this_name"), text_frame("task sleep"))
        assert client.message() == "0.05"
    wait_until(lambda: "app.errors.UnknownFunction" in front.server.log())


def test_a_handler_that_leaves_ends_its_own_message_alone(front: Front) -> None:
    gateway = front.server.gateway_pid()
    with front.connect() as client:
        client.send(text_frame("leave now"), text_frame("echo still there"))
        assert client.message() == "still there"
    wait_until(lambda: "builtins.SystemExit" in front.server.log())
    assert front.server.gateway_pid() == gateway


def test_messages_of_one_connection_run_at_once_but_never_more_than_a_hundred(front: Front) -> None:
    with front.connect() as client:
        start = time.monotonic()
        client.send(text_frame("count") * 250)
        seen = [int(str(client.message())) for _ in range(250)]
        assert time.monotonic() - start < 5
    assert 50 < max(seen) <= 100


def test_messages_that_wait_are_handled_in_order(front: Front) -> None:
    with front.connect() as client:
        client.send(text_frame("block 0.5") * 100, *(text_frame(f"echo {number}") for number in range(200)))
        answers = [client.message() for _ in range(300)]
    assert [answer for answer in answers if answer != "blocked"] == [str(number) for number in range(200)]


def test_messages_that_wait_are_bounded_in_bytes_and_all_are_handled(front: Front) -> None:
    before = front.memory()
    with front.connect() as client:
        client.send(text_frame("block 1") * 100)
        client.send(text_frame("size " + "y" * 60000) * 500)
        assert front.memory() - before < 16 << 20
        answers = [client.message() for _ in range(600)]
    assert (answers.count("blocked"), answers.count("60000")) == (100, 500)


def test_messages_that_came_before_the_end_are_handled_after_it(front: Front) -> None:
    before = len(mails(front.server))
    with front.connect() as client:
        client.send(text_frame("mail") * 120, client_frame(CLOSE, b"\x03\xe8"))
        client.drain()
    wait_until(lambda: len(mails(front.server)) == before + 120)


def test_on_close_is_called_once_a_connection_with_the_code(front: Front) -> None:
    before = front.closed()
    with front.connect() as client:
        client.send(client_frame(CLOSE, b"\x0f\xa1"))
        client.drain()
    with front.connect():
        pass
    wait_until(lambda: len(front.closed()) >= len(before) + 2)
    assert sorted(front.closed()[len(before) :]) == ["1006", "4001"]


MODULES = {
    "raises": ("1 / 0\n", "ZeroDivisionError: division by zero"),
    "leaves": ("raise SystemExit(3)\n", "SystemExit: 3"),
    "empty": ("", "has no on_message"),
    "twice": (
        "from app.gateway import on_message\n@on_message\ndef a(ws, m): ...\n@on_message\ndef b(ws, m): ...\n",
        "on_message is registered twice",
    ),
    "syntax": ("def (", "SyntaxError"),
}


@pytest.mark.parametrize("name", MODULES)
def test_a_handler_module_that_does_not_load_ends_the_start_with_the_reason(tmp_path: Path, name: str) -> None:
    source, reason = MODULES[name]
    (tmp_path / f"handlers_{name}.py").write_text(source)
    with pytest.raises(AssertionError, match="ended before it was ready") as caught:
        Server("--handler", f"handlers_{name}", env={"PYTHONPATH": str(tmp_path)})
    log = str(caught.value)
    assert f"handlers_{name}" in log
    assert reason in log


def test_handlers_are_registered_once_and_only_while_the_process_boots() -> None:
    hooks = Hooks()
    hooks.register("close", print)
    with pytest.raises(SettingsError, match="twice"):
        hooks.register("close", print)
    hooks.booted = True
    with pytest.raises(SettingsError, match="boots"):
        hooks.register("connect", print)


def test_call_outside_of_a_gateway_says_where_it_works() -> None:
    with pytest.raises(Unavailable, match="running gateway"):
        call("echo")
