"""One's own `authenticate`: asked for requests, upgrades and first messages; slow, broken and wrong ones; and asked again."""

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.harness import ROOT, Process, Server, WsClient, wait_until
from tests.httpapi import EventStream, HttpClient, port_of
from tests.rawclient import RawClient, request
from tests.test_tokens_gateway import code_of, ended
from tests.tokenfile import TokenFile, bearer

PATIENCE = 1.5
GOOD = "file-" + "f" * 40


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    tokens = TokenFile(tmp_path_factory.mktemp("tokens") / "tokens.toml")
    tokens.add(GOOD, "of-the-file")
    flags = ("--workers", "1", "--auth", "tests.sample_auth", "--auth-recheck", "0.5", "--handshake-timeout", str(PATIENCE))
    running = Server(*flags, "--rate-failures", "5/h", "--tokens", str(tokens.path))
    yield running
    running.clean()


@pytest.fixture
def http(server: Server) -> Iterator[HttpClient]:
    with HttpClient(server) as client:
        yield client


def subject(client: WsClient, token: str) -> str:
    return str(client.ask({"token": token})["token"]["subject"])


def test_it_is_asked_over_http_by_header_and_by_cookie(http: HttpClient) -> None:
    assert http.ask("POST", "/tasks", {"id": "h1", "function": "echo"}, Prefer="wait=5", **bearer("user-anna")).status == 200
    assert http.ask("GET", "/tasks/h1", Cookie="session=anna").body["state"] == "succeeded"
    assert http.ask("GET", "/tasks/h1", Cookie="session=bert").status == 404
    assert http.ask("GET", "/tasks/h1", Cookie="other=anna").status == 401
    assert http.ask("POST", "/tasks", {"function": "countdown"}, **bearer("echo-anna")).status == 403


def test_it_is_asked_with_the_upgrade_and_with_the_first_message(server: Server) -> None:
    with WsClient(server.ws_url, cookie="session=anna") as client:
        assert client.ask({"ping": 1}) == {"pong": 1}
    with WsClient(server.ws_url) as client:
        assert code_of(client.ask({"ping": 1})) == "unauthorized"
        assert subject(client, "user-bert") == "bert"
    with WsClient(server.ws_url, header=bearer("echo-carl")) as client:
        assert code_of(client.ask({"function": "countdown"})) == "forbidden"


def test_a_connection_may_show_another_token_later(server: Server) -> None:
    with WsClient(server.ws_url, cookie="session=emil") as client:
        assert subject(client, "user-emil") == "emil"
        assert code_of(client.ask({"token": "user-anna"})) == "bad_request"
        assert client.ask({"ping": 1}) == {"pong": 1}


def test_tokens_of_the_file_are_good_beside_it(server: Server, http: HttpClient) -> None:
    with WsClient(server.ws_url) as client:
        assert subject(client, GOOD) == "of-the-file"
    assert http.ask("GET", "/tasks", **bearer(GOOD)).status == 200


def test_a_slow_answer_holds_nobody_up_and_has_a_limit(server: Server, http: HttpClient) -> None:
    with WsClient(server.ws_url) as slow, WsClient(server.ws_url, cookie="session=anna") as other:
        slow.send({"token": "slow-0.5"})
        began = time.monotonic()
        assert other.ask({"ping": 1}) == {"pong": 1}
        assert time.monotonic() - began < 0.4
        assert slow.receive()["token"]["subject"] == "slow"
    began = time.monotonic()
    reply = http.ask("GET", "/tasks", **bearer("slow-60"))
    assert (reply.status, reply.code) == (503, "unavailable")
    assert time.monotonic() - began < PATIENCE + 5
    with RawClient(port_of(server), upgrade=False) as raw:
        raw.send(request(Authorization="Bearer slow-60"))
        assert raw.response()[0] == 503
    assert "authentication-late" in server.log()


@pytest.mark.parametrize("token", ["breaks-secretly", "wrong-secretly", "exits-secretly"])
def test_what_it_raises_refuses_and_is_logged_without_its_words(server: Server, http: HttpClient, token: str) -> None:
    before, gateway = server.log().count("authentication-failed"), server.gateway_pid()
    assert http.ask("GET", "/tasks", **bearer(token)).code == "unauthorized"
    with WsClient(server.ws_url) as client:
        assert code_of(client.ask({"token": token})) == "unauthorized"
        assert ended(client)[0] == 4401
    wait_until(lambda: server.log().count("authentication-failed") >= before + 2)
    assert "sample_auth.py" in server.log()
    assert "secretly" not in server.log()
    assert server.gateway_pid() == gateway, "and it ends nothing else"


def test_one_that_was_killed_refuses(http: HttpClient) -> None:
    assert http.ask("GET", "/tasks", **bearer("killed-secretly")).code == "unauthorized"


def test_it_is_asked_again_about_a_connection_that_stays(server: Server) -> None:
    with WsClient(server.ws_url, cookie="session=doris") as client, WsClient(server.ws_url, header=bearer("user-anna")) as other:
        assert client.ask({"ping": 1}) == {"pong": 1}
        (server.home / "sent-away").write_text("doris")
        assert ended(client, 10)[0] == 4401
        assert other.ask({"ping": 1}) == {"pong": 1}


def test_it_is_asked_again_about_streams_and_requests_that_wait(server: Server, http: HttpClient) -> None:
    cookie = "session=frida"
    http.ask("POST", "/tasks", {"id": "long", "function": "sleep", "args": [60]}, Cookie=cookie)
    with EventStream(server, "long", timeout=15, Cookie=cookie) as stream:
        events = iter(stream)
        assert next(events)["event"] == "accepted"
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(http.ask, "GET", "/tasks/long", Prefer="wait=60", Cookie=cookie)
            assert next(events)["event"] == "started"
            (server.home / "sent-away").write_text("doris frida")
            assert list(events) == []
            assert waiting.result(15).code == "unauthorized"


def test_an_identity_may_end(server: Server) -> None:
    with WsClient(server.ws_url, header=bearer(f"brief-{time.time() + 2}")) as client:
        assert client.ask({"ping": 1}) == {"pong": 1}
        assert ended(client, 10)[0] == 4401


def test_guessing_is_limited_by_address_and_a_token_of_the_file_is_let_in_all_the_same(server: Server, http: HttpClient) -> None:
    """The last one here: this address has no more guesses afterwards."""
    with WsClient(server.ws_url) as meanwhile:
        meanwhile.send({"token": "slow-1"})  # asked about before the guesses, answered after them
        codes = [http.ask("GET", "/tasks", **bearer(f"guess-{number}")).code for number in range(8)]
        assert code_of(meanwhile.receive()) == "rate_limited"
    assert codes[-1] == "rate_limited"
    assert set(codes) <= {"unauthorized", "rate_limited"}
    reply = http.ask("GET", "/tasks", **bearer("user-anna"))
    assert (reply.status, reply.code) == (429, "rate_limited")
    assert int(reply.headers["retry-after"]) > 1
    assert reply.body["retry_after"] > 1
    with RawClient(port_of(server), upgrade=False) as raw:
        raw.send(request(Authorization="Bearer user-anna"))
        status, headers, _ = raw.response()
    assert (status, int(headers["retry-after"]) > 1) == (429, True)
    with WsClient(server.ws_url) as client:
        assert code_of(client.ask({"token": "user-anna"})) == "rate_limited"
        assert subject(client, GOOD) == "of-the-file"


@pytest.mark.parametrize(
    ("module", "said"), [("tests.nowhere", "cannot load the module tests.nowhere"), ("tests.tokenfile", "has no function")]
)
def test_a_module_that_cannot_be_used_ends_the_start(module: str, said: str) -> None:
    flags = ("--ws", "127.0.0.1:0", "--text", "127.0.0.1:0", "--workers", "1", "--auth", module)
    process = Process([sys.executable, str(ROOT / "run.py"), *flags])
    try:
        assert process.wait() == 2
        assert said in process.log()
    finally:
        process.clean()
