"""A task's events over HTTP: from any number on, live and again, through cuts and slow readers; nothing is left of those who go away."""

import contextlib
import http.client
import os
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.effects import check_story, effects, open_gate
from tests.harness import Server, WsClient, wait_until
from tests.httpapi import EventStream, HttpClient, fresh, port_of
from tests.wstasks import story, submit

FLAGS = ("--tasks", "tests.sample_tasks", "--ping-interval", "0.3", "--stall-timeout", "1")


def files(server: Server) -> int:
    """Descriptors that the gateway has open."""
    return len(os.listdir(f"/proc/{server.gateway_pid()}/fd"))


def test_everything_that_is_said_is_sent_and_then_the_stream_ends(server: Server, client: WsClient) -> None:
    task_id = submit(client, "countdown", {"start": 3, "interval": 0.01})
    with EventStream(server, task_id) as stream:
        assert stream.response.status == 200
        assert stream.response.headers["Content-Type"] == "text/event-stream"
        assert stream.response.headers["Cache-Control"] == "no-store"
        events = list(stream)
    check_story(events)
    assert events == story(client, task_id)


def test_who_comes_back_is_sent_what_was_missed_and_at_the_end_told_not_to_come_back(server: Server) -> None:
    with HttpClient(server) as api:
        last = api.submit("countdown", {"start": 3, "interval": 0}, wait=9).body["seq"]
        task_id = api.ask("GET", "/tasks?limit=1").body["tasks"][0]["id"]
    for after in range(last):
        with EventStream(server, task_id, after) as stream:
            assert [event["seq"] for event in stream] == list(range(after + 1, last + 1))
    for after in (last, last + 1, 10**14):
        with EventStream(server, task_id, after) as stream:
            assert (stream.response.status, stream.response.read()) == (204, b"")


def test_a_client_that_is_cut_off_again_and_again_misses_nothing(server: Server) -> None:
    with HttpClient(server) as api:
        task_id = api.submit("flow", {"count": 200, "pause": 0.002}).body["id"]
    seen: list[Any] = []
    while not seen or seen[-1]["event"] != "succeeded":
        stream = EventStream(server, task_id, len(seen))
        for event in stream:
            seen.append(event)
            if len(seen) % 25 == 0:
                break
        stream.cut()
    check_story(seen)
    assert len(seen) == 203


def test_many_watch_one_task_as_it_speaks(server: Server) -> None:
    with HttpClient(server) as api:
        task_id = api.submit("flow", {"count": 300, "pause": 0.002}).body["id"]
        wait_until(lambda: api.ask("GET", f"/tasks/{task_id}").body["seq"] > 15)
    told: dict[int, list[Any]] = {}

    def watch(after: int) -> None:
        with EventStream(server, task_id, after) as stream:
            told[after] = list(stream)

    watchers = [threading.Thread(target=watch, args=(after,)) for after in range(15)]
    for watcher in watchers:
        watcher.start()
    for watcher in watchers:
        watcher.join()
    check_story(told[0])
    assert all(events == told[0][after:] for after, events in told.items())


def test_silence_is_filled_with_comments_and_a_cancel_is_heard(server: Server, gate: Path) -> None:
    with HttpClient(server) as api:
        task_id = api.submit("gated", {"gate": str(gate)}).body["id"]
        with EventStream(server, task_id) as stream:
            events = iter(stream)
            assert [next(events)["event"], next(events)["event"]] == ["accepted", "started"]
            threading.Timer(1.0, lambda: api.ask("DELETE", f"/tasks/{task_id}")).start()
            assert [event["event"] for event in events] == ["cancelled"]
            assert stream.comments >= 2


def test_who_has_seen_more_than_there_is_of_a_running_task_is_told_its_end(server: Server, gate: Path) -> None:
    with HttpClient(server) as api:
        task_id = api.submit("gated", {"gate": str(gate)}).body["id"]
        api.until(task_id, "running")
    with EventStream(server, task_id, 1000) as stream:
        open_gate(gate)
        assert next(iter(stream))["event"] == "succeeded"


def test_a_stream_ends_when_its_reader_prefers(server: Server, gate: Path) -> None:
    with HttpClient(server) as api:
        task_id = api.submit("gated", {"gate": str(gate)}).body["id"]
        api.until(task_id, "running")
    with EventStream(server, task_id, Prefer="wait=0") as stream:
        assert [event["event"] for event in stream] == ["accepted", "started"]


def test_a_client_of_http_1_0_is_served_and_the_connection_ends(server: Server, gate: Path) -> None:
    with HttpClient(server) as api:
        task_id = api.submit("countdown", {"start": 1, "interval": 0}, wait=9).body["id"]
    with socket.create_connection(("127.0.0.1", port_of(server)), 10) as plain:
        plain.sendall(b"GET /tasks/%b/events HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" % task_id.encode())
        data = b""
        while more := plain.recv(65536):
            data += more
    head, _, body = data.partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert body.startswith(b"retry: ")
    assert body.count(b"\nid: ") == 5


def test_nothing_is_left_of_those_who_go_away(server: Server, gate: Path) -> None:
    with HttpClient(server) as api:
        task_id = api.submit("gated", {"gate": str(gate)}).body["id"]
        api.until(task_id, "running")
    before = wait_until(lambda: files(server))
    streams = [EventStream(server, task_id) for _ in range(20)]
    waiting = [socket.create_connection(("127.0.0.1", port_of(server)), 10) for _ in range(20)]
    for sock in waiting:
        sock.sendall(b"GET /tasks/%b HTTP/1.1\r\nHost: localhost\r\nPrefer: wait=60\r\n\r\n" % task_id.encode())
    wait_until(lambda: files(server) >= before + 40)
    for stream in streams:
        stream.cut()
    for sock in waiting:
        sock.close()
    wait_until(lambda: files(server) <= before)


def test_a_reader_that_does_not_read_is_cut_off(server: Server) -> None:
    with HttpClient(server) as api, socket.socket() as slow:
        task_id = api.submit("flow", {"count": 150, "width": 60_000}, wait=30).body["id"]
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.settimeout(10)
        slow.connect(("127.0.0.1", port_of(server)))
        slow.sendall(b"GET /tasks/%b/events HTTP/1.1\r\nHost: localhost\r\n\r\n" % task_id.encode())
        slow.recv(1, socket.MSG_PEEK)
        before = files(server)
        wait_until(lambda: files(server) < before)
        received = 0
        with contextlib.suppress(ConnectionResetError):
            while more := slow.recv(1 << 20):
                received += len(more)
    assert received < 9_000_000  # all of it would be more


def test_a_slow_reader_that_does_read_is_sent_all_of_it(server: Server) -> None:
    with HttpClient(server) as api:
        reply = api.submit("flow", {"count": 60, "width": 60_000})
    with EventStream(server, reply.body["id"], timeout=20) as stream:
        events = []
        for event in stream:
            events.append(event)
            threading.Event().wait(0.02)
    check_story(events)
    assert len(events) == 63


# The gateway's end.


def test_a_gateway_that_leaves_answers_those_who_wait(start_server: Callable[..., Server], gate: Path) -> None:
    server = start_server("--tasks", "tests.sample_tasks", "--workers", "1", "--graceful", "1")
    replies: list[Any] = []

    def wait() -> None:
        with HttpClient(server, timeout=20) as own:
            replies.append(own.submit("gated", {"gate": str(gate)}, wait=60, id="w"))

    with HttpClient(server) as api:
        task_id = api.submit("gated", {"gate": str(gate)}).body["id"]
        waiter = threading.Thread(target=wait)
        waiter.start()
        wait_until(lambda: len(api.ask("GET", "/tasks?state=running").body["tasks"]) == 2)
        with EventStream(server, task_id) as stream:
            events = iter(stream)
            assert [next(events)["event"] for _ in range(2)] == ["accepted", "started"]
            os.kill(server.gateway_pid(), signal.SIGTERM)
            wait_until(lambda: api.submit("echo").status == 503)
            refused = api.submit("echo")
            assert (refused.code, refused.headers["retry-after"]) == ("busy", "1")
            assert list(events) == []  # it ends as a stream does, not as a connection that breaks
        waiter.join()
    assert [(reply.status, reply.body["state"]) for reply in replies] == [(202, "running")]


def test_a_stream_that_a_killed_gateway_broke_is_taken_up_where_it_was(start_server: Callable[..., Server]) -> None:
    server = start_server("--tasks", "tests.sample_tasks", "--workers", "1")
    task_id = fresh()
    flow = {"count": 150, "pause": 0.01}
    with HttpClient(server) as api:
        api.submit("flow", flow, id=task_id)
    seen: list[Any] = []
    killed = server.gateway_pid()

    def follow() -> bool:
        """Take what comes, until the end or a cut; the cut comes after forty."""
        with contextlib.suppress(OSError, http.client.HTTPException), EventStream(server, task_id, len(seen)) as stream:
            for event in stream:
                seen.append(event)
                if len(seen) == 40:
                    os.kill(killed, signal.SIGKILL)
        return bool(seen) and seen[-1]["event"] == "succeeded"

    wait_until(follow, 30)
    check_story(seen)
    assert len(seen) == 153
    assert server.gateway_pid() != killed
    with HttpClient(server) as api:
        assert api.submit("flow", flow, id=task_id).status == 200
    assert len(effects(server, task_id)) == 1
