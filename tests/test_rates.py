"""Rate limits, by themselves with a clock of the test's, and at a real gateway over WebSocket and HTTP."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.errors import SettingsError
from app.gateway import rates
from app.gateway.rates import Limiter, place_of
from app.kinds import RATE, Rate
from tests.harness import Server, WsClient
from tests.httpapi import HttpClient, port_of
from tests.rawclient import RawClient, request
from tests.tokenfile import TokenFile, bearer


class Clock:
    """What `time.monotonic` says."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(rates, "time", made)
    return made


def test_a_bucket_lets_its_rate_through_at_once_and_then_in_its_time(clock: Clock) -> None:
    limiter = Limiter(Rate(5, 1.0))
    assert [limiter.take("a") for _ in range(5)] == [0.0] * 5
    assert limiter.take("a") == pytest.approx(0.2)
    assert limiter.take("b") == 0.0
    clock.now += 0.2 + 1e-6
    assert limiter.take("a") == 0.0
    assert limiter.take("a") > 0
    clock.now += 3600  # it never holds more than its rate
    assert sum(limiter.take("a") == 0.0 for _ in range(20)) == 5


def test_over_a_long_time_not_more_than_the_rate(clock: Clock) -> None:
    limiter = Limiter(Rate(10, 60.0))
    taken = 0
    for _ in range(6000):
        taken += limiter.take("a") == 0.0
        clock.now += 0.1
    assert 105 <= taken <= 111  # ten minutes, and the bucket that was full


def test_what_is_refused_takes_nothing(clock: Clock) -> None:
    limiter = Limiter(Rate(1, 1.0))
    limiter.take("a")
    first = limiter.take("a")
    assert [limiter.take("a") for _ in range(1000)] == [first] * 1000
    clock.now += first + 1e-6
    assert limiter.take("a") == 0.0


def test_memory_is_bounded_however_many_come(clock: Clock) -> None:
    limiter = Limiter(Rate(2, 60.0), most=100)
    for number in range(10_000):
        limiter.take(f"address {number}")
        assert limiter.take("patient") == 0.0 or number >= 2  # one that comes again and again is not forgotten meanwhile
    assert len(limiter._full_at) + len(limiter._older) <= 200
    assert limiter.take("patient") > 0


def test_no_rate_is_no_limit_and_costs_no_memory() -> None:
    limiter = Limiter(None)
    assert [limiter.take(str(number)) for number in range(1000)] == [0.0] * 1000
    assert not limiter._full_at


def test_who_waits_in_turn_is_let_through_in_its_time(clock: Clock) -> None:
    limiter = Limiter(Rate(2, 1.0))
    assert [round(limiter.wait_in_turn("a"), 3) for _ in range(5)] == [0.0, 0.0, 0.5, 1.0, 1.5]


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::7", "2001:db8:1:2::/64"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("no:address", "no:address"),
    ],
)
def test_what_an_address_is_counted_as(address: str, place: str) -> None:
    assert place_of(address) == place


@pytest.mark.parametrize(("text", "rate"), [("0", None), ("100/s", Rate(100, 1.0)), ("6 / min", Rate(6, 60.0)), ("1/h", Rate(1, 3600.0))])
def test_how_a_rate_is_written(text: str, rate: Rate | None) -> None:
    assert RATE.read(text) == rate


@pytest.mark.parametrize("text", ["", "100", "/s", "0/s", "-1/s", "1.5/s", "1/day", "s/1", "nan/s"])
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises((ValueError, KeyError, SettingsError)):
        RATE.read(text)


ANNA, BERT = "anna-" + "a" * 40, "bert-" + "b" * 40


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    tokens = TokenFile(tmp_path_factory.mktemp("tokens") / "tokens.toml")
    tokens.add(ANNA, "anna")
    tokens.add(BERT, "bert")
    running = Server("--workers", "1", "--tokens", str(tokens.path), "--rate-owner", "20/h", "--rate-address", "90/h")
    yield running
    running.clean()


def test_an_owner_is_limited_over_both_and_another_is_not(server: Server) -> None:
    with WsClient(server.ws_url, header=bearer(ANNA)) as anna, WsClient(server.ws_url, header=bearer(BERT)) as bert:
        answers = [anna.ask({"list": {"limit": 1}}) for _ in range(25)]
        assert ["list" in answer for answer in answers] == [True] * 20 + [False] * 5
        error = answers[-1]["error"]
        assert error["code"] == "rate_limited"
        assert 0 < error["retry_after"] <= 180
        assert anna.ask({"id": "late", "function": "echo"})["id"] == "late"
        assert anna.messages[-1]["error"]["code"] == "rate_limited"
        assert anna.ask({"ping": 1}) == {"pong": 1}
        assert anna.ask({"ping": 1, "list": {}})["error"]["code"] == "rate_limited"  # it would be answered as a list
        assert anna.ask({"id": "late", "cancel": True})["error"]["code"] == "unknown_task"
        assert "list" in bert.ask({"list": {}})
    with HttpClient(server) as http:
        reply = http.ask("GET", "/tasks", **bearer(ANNA))
        assert (reply.status, reply.code) == (429, "rate_limited")
        assert int(reply.headers["retry-after"]) >= 1
        assert http.ask("GET", "/tasks", **bearer(BERT)).status == 200


def test_an_address_is_limited_whoever_it_says_it_is(server: Server) -> None:
    """The last one here: nothing is left for this address afterwards."""
    with HttpClient(server) as http:
        replies = [http.ask("GET", "/tasks").status for _ in range(90)]
        assert replies[0] == 401
        assert replies[-1] == 429
        assert http.ask("GET", "/tasks", **bearer(BERT)).status == 429
        assert http.ask("GET", "/").status == 200  # the pages are served from memory
    with RawClient(port_of(server), upgrade=False) as raw:
        raw.send(request())
        assert raw.response()[0] == 429


def test_messages_to_ones_own_handlers_wait_their_turn(tmp_path: Path) -> None:
    server = Server("--workers", "1", "--handler", "tests.gateway_handlers", "--rate-address", "10/s")
    try:
        with WsClient(server.ws_url.removesuffix("ws")) as client:
            began = time.monotonic()
            for number in range(20):
                client.send(f"echo {number}")
            assert sorted(int(client.receive()) for _ in range(20)) == list(range(20))
            assert 0.7 < time.monotonic() - began < 5
    finally:
        server.clean()
