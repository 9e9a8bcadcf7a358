"""The rows of clients that are many, slow or rude: each beside a load of tasks, which must not feel it."""

import resource
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from app.gateway.frames import BINARY, CONTINUATION, TEXT
from bench.faults.accounts import Accounts
from bench.faults.kills import ALL, FLAGS, ONCE
from bench.faults.rude import latency
from bench.faults.stage import Plan, Stage, staged
from bench.procs import pss
from tests.harness import TextClient, WsClient
from tests.rawclient import RawClient, announced, client_frame, text_frame

KIB, MIB = 1024, 1024 * 1024
FLAT = 32 * MIB
"""Bytes by which the gateway may grow for all that an attack leaves behind in its allocator."""
CACHE = 16 * MIB
"""Bytes of SQLite's cache, which results that are written and read again fill."""


def connections(plan: Plan) -> Accounts:
    """Thousands of idle connections, then hundreds of handshakes a byte at a time: what one costs, and what the others feel."""
    idle, slow = (10_000, 500) if plan.long else (500, 50)
    limit = 10.0 if plan.long else 1.0
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with staged("connections", plan, ONCE, *FLAGS, "--handshake-timeout", str(limit), lines=1, window=5) as stage:
        stage.portion(0.3)
        quiet = latency(stage, limit)
        before = pss(stage.house.gateway_pid())
        with _idle(stage, idle):
            each = (pss(stage.house.gateway_pid()) - before) / idle
            crowded = latency(stage, limit)
            stage.portion(0.6)
            beside = _slow_handshakes(stage, slow, limit)
        accounts = stage.books()
    most = 2.0 if plan.long else 20.0
    accounts.want(beside < max(most * quiet, 0.02), f"p99 {beside * 1000:.1f} ms beside the handshakes, {quiet * 1000:.1f} ms without")
    accounts.want(each < 32 * KIB, f"{each / KIB:.1f} KiB a connection")
    accounts.want(not accounts.interrupted and accounts.extra == 0, f"I = {len(accounts.interrupted)}, E = {accounts.extra}")
    accounts.remarks.append(
        f"{idle} connections: {each / KIB:.1f} KiB each, p99 of an echo {quiet * 1000:.1f} ms alone, {crowded * 1000:.1f} ms beside them"
    )
    accounts.remarks.append(f"{slow} handshakes a byte at a time: closed at {limit:g} s; p99 meanwhile {beside * 1000:.1f} ms")
    return accounts


def _port(stage: Stage) -> int:
    return int(stage.house.ws_url.rsplit(":", 1)[1].split("/")[0])


@contextmanager
def _idle(stage: Stage, count: int) -> Iterator[None]:
    """So many connections that say nothing."""
    held: list[RawClient] = []
    try:
        for _ in range(count):
            held.append(RawClient(_port(stage)))
        yield
    finally:
        _close(held)


def _slow_handshakes(stage: Stage, count: int, limit: float) -> float:
    """p99 of an echo meanwhile, in seconds; all of the slow ones are closed by the limit and a little."""
    request = b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: " + b"x" * 10_000
    sockets = [socket.create_connection(("127.0.0.1", _port(stage))) for _ in range(count)]
    began, samples = time.monotonic(), []
    for number in range(len(request)):
        for one in sockets:
            with suppress(OSError):  # closed by the server
                one.send(request[number : number + 1])
        samples.append(latency(stage, 0.25))
        if time.monotonic() - began > limit + 0.5:
            break
    for one in sockets:
        one.settimeout(5.0)
        with one, suppress(ConnectionResetError):
            assert one.recv(4096)[:12] in (b"HTTP/1.1 408", b"")
    return sorted(samples)[-max(1, len(samples) // 10)]


def slow_readers(plan: Plan) -> Accounts:
    """Readers that do not read: closed with 1013, their results fetched later by somebody else, and the gateway's memory flat."""
    readers, stall = (20, 10.0) if plan.long else (2, 2.0)
    with staged("does not read", plan, ALL, *FLAGS, "--stall-timeout", str(stall)) as stage:
        stage.portion(0.5)
        clients, ids = _unread(stage, "read", readers)
        _fetch(stage, ids)  # what so much costs where it is read
        _close(clients)
        before = pss(stage.house.gateway_pid())
        clients, ids = _unread(stage, "unread", readers)
        stage.portion(1.0)
        time.sleep(stall + 1.2)  # closed by then, and not cut off yet
        grown = pss(stage.house.gateway_pid()) - before
        codes = [(client.drain() or (0, ""))[0] for client in clients]
        _close(clients)
        sizes = _fetch(stage, ids)
        accounts = stage.books()
    told = codes.count(1013)
    accounts.want(told > readers // 2 and set(codes) <= {1013, 0}, f"closed with {sorted(set(codes))}, {told} with 1013")
    accounts.want(sizes == {900_000}, f"results of {sizes} bytes")
    accounts.want(grown < FLAT + CACHE + readers * 2 * MIB, f"{grown / MIB:.1f} MiB more")
    accounts.remarks.append(
        f"{readers} readers with 7 MB each: {told} read 1013 before they were cut off; the gateway grew by {grown / MIB:.1f} MiB meanwhile"
    )
    return accounts


def _unread(stage: Stage, name: str, readers: int) -> tuple[list[RawClient], list[str]]:
    """Clients with 8 results on their way to each, who take no byte of them; and the ids of these."""
    clients = [RawClient(_port(stage), receive_buffer=4 * KIB, timeout=60) for _ in range(readers)]
    ids = [f"{name}-{number}-{task}" for number in range(readers) for task in range(8)]
    for number, task_id in enumerate(ids):
        clients[number // 8].send(text_frame(f'{{"id":"{task_id}","function":"wide","args":[900000]}}'))
    return clients, ids


def _close(clients: list[RawClient]) -> None:
    for client in clients:
        client.socket.close()


def _fetch(stage: Stage, ids: list[str]) -> set[int]:
    """The sizes of their results."""
    sizes = set()
    with WsClient(stage.house.ws_url, timeout=30) as client:
        for name in ids:
            client.send({"id": name, "attach": 0})
            sizes.add(len(client.final(name, 30)["result"]))
    return sizes


FRAMES = {
    "2^63 bytes": (announced(BINARY, 1 << 63), 1009),
    "fragments past the limit": (
        client_frame(TEXT, bytes(40000), final=False) + client_frame(CONTINUATION, bytes(40000), final=False),
        1009,
    ),
    "unmasked": (client_frame(TEXT, b"hello", mask=b""), 1002),
    "bad UTF-8": (client_frame(TEXT, b"\xc3\x28"), 1007),
    "binary": (client_frame(BINARY, b"hello"), 1003),
}
NAMES = ("os.system", "__import__", "builtins.eval", "workers.tasks.demo.echo", "no_such_function")


def attacks(plan: Plan) -> Accounts:
    """Broken frames, lines without end, and names of what is no task: each answered with its code, and the gateway's memory flat."""
    rounds = 200 if plan.long else 5
    with staged("attacks", plan, ALL, *FLAGS) as stage:
        stage.portion(0.3)
        wrong = _attack(stage)
        before = pss(stage.house.gateway_pid())
        for _ in range(rounds):
            wrong += _attack(stage)
        grown = pss(stage.house.gateway_pid()) - before
        accounts = stage.books()
    accounts.broken += wrong[:5]
    accounts.want(grown < FLAT, f"{grown / MIB:.1f} MiB more")
    accounts.want(not accounts.interrupted and accounts.extra == 0, f"I = {len(accounts.interrupted)}, E = {accounts.extra}")
    accounts.remarks.append(
        f"{rounds} rounds of {len(FRAMES)} frames, {len(NAMES)} names, 2 lines: the gateway grew by {grown / MIB:.1f} MiB"
    )
    return accounts


def _attack(stage: Stage) -> list[str]:
    """What was not answered as it should."""
    wrong = []
    for name, (frames, code) in FRAMES.items():
        with RawClient(_port(stage)) as client:
            client.send(frames)
            closed = client.drain()
        if closed is None or closed[0] != code:
            wrong.append(f"{name}: closed with {closed}")
    with WsClient(stage.house.ws_url) as browser:
        for name in NAMES:
            answer = browser.ask({"id": "n", "function": name, "args": ["true"]})
            if answer.get("error", {}).get("code") != "unknown_function":
                wrong.append(f"{name}: {answer}")
    with TextClient(stage.house.text_address) as client:
        client.send(b"x" * (MIB + 2 * KIB) + b"\n")
        answer = client.receive()
        if answer.get("error", {}).get("code") != "too_large" or client.receive_line():
            wrong.append(f"a line past the limit: {answer}")
    return wrong + _endless(stage)


def _endless(stage: Stage) -> list[str]:
    with TextClient(stage.house.text_address) as client:
        began = time.monotonic()
        with suppress(ConnectionError):  # it is let go of in the end
            for _ in range(64):
                client.send(b"x" * 64 * KIB)
            client.half_close()
        answer = client.receive()
        took = time.monotonic() - began
    return [] if answer.get("error", {}).get("code") == "too_large" and took < 5 else [f"a line without end: {answer} after {took:.1f} s"]
