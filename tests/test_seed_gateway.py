"""The gateway of Workerman's FAQ in plain blocking code: any message becomes a mail, and the client hears when it is sent."""

import ast
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from email import message_from_bytes
from email.policy import default
from pathlib import Path

import pytest

from tests.harness import ROOT, Server, WsClient, wait_until

EXAMPLE = ROOT / "examples" / "seed_gateway.py"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    running = Server("--handler", "examples.seed_gateway", "--workers", "2")
    yield running
    running.clean()


@pytest.fixture
def url(server: Server) -> str:
    """Where the handler is: `/`, and `/ws` stays with the built-in gateway."""
    return server.ws_url.removesuffix("ws")


def contents(server: Server) -> Counter[str]:
    """What the mails say that were sent so far."""
    mails = [path for path in server.data_dir.rglob("new/*") if path.is_file()]
    return Counter(message_from_bytes(path.read_bytes(), policy=default).get_content().rstrip("\r\n") for path in mails)


@pytest.mark.parametrize(
    "message", ["hi", "", "{}", '{"function": "fail"}', "not json {", "مرحباً 🎉", "x" * 60_000], ids=lambda text: text[:20] or "empty"
)
def test_any_message_becomes_a_mail_and_the_client_hears_when_it_is_sent(server: Server, url: str, message: str) -> None:
    with WsClient(url) as client:
        before = contents(server)[message]
        assert client.ask(message) == "task complete"
        assert contents(server)[message] == before + 1


def test_two_hundred_messages_at_once_are_each_answered_and_the_reader_never_stops(server: Server, url: str) -> None:
    with WsClient(url) as client:
        for number in range(200):
            client.send(f"number {number}")
        client.socket.ping("still there")
        assert [client.receive() for _ in range(200)] == ["task complete"] * 200
    sent = contents(server)
    assert [sent[f"number {number}"] for number in range(200)] == [1] * 200


def test_many_clients_at_once_are_each_told_of_their_own(server: Server, url: str) -> None:
    with ExitStack() as clients:
        everyone = [clients.enter_context(WsClient(url)) for _ in range(40)]
        for number, client in enumerate(everyone):
            for turn in range(1 + number % 3):
                client.send(f"client {number}, turn {turn}")
        for number, client in enumerate(everyone):
            assert [client.receive() for _ in range(1 + number % 3)] == ["task complete"] * (1 + number % 3)
    sent = contents(server)
    assert all(sent[f"client {number}, turn {turn}"] == 1 for number in range(40) for turn in range(1 + number % 3))


def test_a_client_that_leaves_before_its_answer_still_has_its_mail_sent(server: Server, url: str) -> None:
    with WsClient(url) as client:
        for number in range(20):
            client.send(f"gone {number}")
    wait_until(lambda: {f"gone {number}" for number in range(20)} <= set(contents(server)))


def test_the_built_in_gateway_stays_beside_it(server: Server) -> None:
    with WsClient(server.ws_url) as client:
        assert client.ask({"ping": 1}) == {"pong": 1}
        client.send({"id": "beside", "function": "echo", "args": {"n": 1}, "events": "final"})
        assert client.receive()["result"] == {"n": 1}


def test_it_is_no_longer_than_the_original() -> None:
    """Lines that hold code: no blank ones, no comments, no docstrings."""
    assert len(code_lines(EXAMPLE)) <= 20


def code_lines(path: Path) -> set[int]:
    """The numbers of the lines on which some statement or expression stands."""
    tree = ast.parse(path.read_text())
    texts = [node for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)]
    left_out = {line for text in texts for line in range(text.lineno, (text.end_lineno or text.lineno) + 1)}
    return {node.lineno for node in ast.walk(tree) if hasattr(node, "lineno")} - left_out
