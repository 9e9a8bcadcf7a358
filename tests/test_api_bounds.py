"""What the HTTP API bounds, and for whom; and what becomes of a submit that the journal did not take."""

import contextlib
import json
import os
import socket
from pathlib import Path

import pytest

from app.errors import Busy, IdConflict, UnknownTask
from app.gateway.follow import MOST_HELD, Follower
from app.journal import Kind, MemoryJournal
from app.messages import Submit
from app.task import Task
from tests.effects import open_gate
from tests.harness import Server, WsClient, wait_until
from tests.httpapi import EventStream, HttpClient, port_of
from tests.rawclient import RawClient

FLAGS = ("--tasks", "tests.sample_tasks", "--workers", "1", "--max-unfinished", "20", "--concurrency", "50")


def test_what_an_address_may_have_unfinished_is_bounded(server: Server, gate: Path) -> None:
    with HttpClient(server) as api, WsClient(server.ws_url) as client:
        ids = [api.submit("gated", {"gate": str(gate)}).body["id"] for _ in range(20)]
        refused = api.submit("echo")
        assert (refused.status, refused.code, refused.headers["retry-after"]) == (503, "busy", "1")
        assert refused.body["retry_after"] == 1.0
        again = api.submit("gated", {"gate": str(gate)}, id=ids[0])  # no new one
        assert (again.status, again.body["id"]) == (202, ids[0])
        assert client.ask({"function": "echo"})["event"] == "accepted"
        assert api.ask("DELETE", f"/tasks/{ids[1]}").status == 202
        assert api.until(ids[1], "cancelled")
        assert api.submit("gated", {"gate": str(gate)}).status == 202
        open_gate(gate)
        for task_id in ids[2:]:
            api.until(task_id, "succeeded")
        assert api.submit("echo", wait=9).status == 200


def test_bodies_that_end_at_once_are_counted_one_by_one(server: Server, gate: Path) -> None:
    body = json.dumps({"function": "gated", "args": {"gate": str(gate)}}).encode()
    head = f"POST /tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(RawClient(port_of(server), upgrade=False)) for _ in range(30)]
        for client in clients:
            client.send(head, body[:-1])
        for client in clients:
            client.send(body[-1:])
        assert sorted(client.head()[0] for client in clients) == [202] * 20 + [503] * 10
    open_gate(gate)
    with HttpClient(server) as api:
        wait_until(lambda: {task["state"] for task in api.ask("GET", "/tasks").body["tasks"]} <= {"succeeded", "cancelled"})


def test_how_many_of_an_address_wait_is_bounded_and_a_submit_does_not_suffer(server: Server, gate: Path) -> None:
    with HttpClient(server) as api, contextlib.ExitStack() as stack:
        task_id = api.submit("gated", {"gate": str(gate)}).body["id"]
        streams = [stack.enter_context(EventStream(server, task_id)) for _ in range(20)]
        for path in (f"/tasks/{task_id}/events", f"/tasks/{task_id}"):
            refused = api.ask("GET", path, Prefer="wait=5")
            assert (refused.status, refused.code) == (503, "busy")
        assert api.submit("gated", {"gate": str(gate)}, wait=30).status == 202
        open_gate(gate)
        assert [list(stream)[-1]["event"] for stream in streams] == ["succeeded"] * 20
        assert api.ask("GET", f"/tasks/{task_id}/events").status == 200


def test_bodies_that_never_come_take_no_memory(server: Server) -> None:
    statm = Path(f"/proc/{server.gateway_pid()}/statm")
    page = os.sysconf("SC_PAGE_SIZE")
    before = int(statm.read_text().split()[1]) * page
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", port_of(server)), 10))
            sock.sendall(b"POST /tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 65536\r\n\r\n{")
        with HttpClient(server) as api:
            assert api.submit("echo", wait=9).status == 200
        assert int(statm.read_text().split()[1]) * page - before < 6 << 20  # what they announce is more


# A follower, and a journal that says no.


def task_of(submit: Submit) -> Task:
    return Task("", "lane", submit, b"{}", 0)


def followed(submit: Submit) -> tuple[Follower, Task, MemoryJournal]:
    """A task that is on its way into the journal, and who follows it."""
    journal = MemoryJournal("journal")
    follower, task = Follower(journal, "", submit.id), task_of(submit)
    follower.follow(task)
    return follower, task, journal


def test_a_submit_that_is_not_kept_is_refused_after_all() -> None:
    submit = Submit("t", "f", {})
    follower, _, _ = followed(submit)
    follower.refused(Busy("no room on the disk"))
    with pytest.raises(Busy, match="no room"):
        follower.confirm(submit, own=True)
    with pytest.raises(Busy, match="no room"):
        follower.read()


def test_a_submit_whose_id_the_journal_knew_is_that_task_or_a_conflict() -> None:
    for own_args, conflict in (({}, False), ({"a": 1}, True)):
        submit = Submit("t", "f", own_args)
        follower, _, journal = followed(submit)
        journal.commit([(Kind.ACCEPT, task_of(Submit("t", "f", {})), 0, b"", False, None)], lambda known: None)
        follower.already_known()
        if conflict:
            with pytest.raises(IdConflict):
                follower.confirm(submit, own=True)
        else:
            assert follower.confirm(submit, own=True) is not None


def test_a_task_that_the_journal_forgot_is_unknown() -> None:
    follower = Follower(MemoryJournal("journal"), "", "t")
    follower.follow(None)
    with pytest.raises(UnknownTask):
        follower.read()


def test_what_is_held_for_one_that_does_not_ask_is_bounded_and_read_again() -> None:
    submit = Submit("t", "f", {})
    follower, task, journal = followed(submit)
    journal.commit([(Kind.ACCEPT, task, 0, b"", False, None)], lambda known: None)
    said = [(number, b"x" * 1000, number == 300) for number in range(1, 301)]
    for seq, line, final in said:
        journal.commit([(Kind.EVENT, task, seq, line, final, None)], lambda known: None)
        task.kept = seq
        follower.deliver(seq, line, final)
        assert sum(len(held) for _, held, _ in follower._held) <= MOST_HELD
    read: list[tuple[int, bytes, bool]] = []
    while not follower.over:
        assert follower.wait(0)
        read += follower.read()
    assert read == said
