"""The Python session with a real gateway, and a network between them that breaks: no event is lost or told twice, nothing runs twice."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from app.errors import RemoteError, Unavailable
from app.remote import Session
from app.remote.task import RemoteTask
from tests.effects import check_story, runs
from tests.harness import ROOT, Server, wait_until
from tests.proxy import Proxy
from tests.scripted import HASTE

FLAGS = ("--tasks", "tests.sample_tasks", "--max-message", "16KiB")


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    """The way to the gateway."""
    with Proxy() as one:
        address = urlsplit(server.ws_url)
        assert address.hostname
        assert address.port
        one.target = (address.hostname, address.port)
        yield one


@pytest.fixture
def session(proxy: Proxy) -> Iterator[Session]:
    with Session(f"ws://127.0.0.1:{proxy.port}/ws", pace=HASTE) as one:
        yield one


def test_the_whole_api_with_a_real_gateway(server: Server) -> None:
    with Session(server.ws_url) as session:
        assert "echo" in {entry["name"] for entry in session.describe()["functions"]}
        events = list(session.run("countdown", {"start": 2, "interval": 0}))
        check_story(events)
        assert [event["value"] for event in events if event["event"] == "output"] == [2, 1, 0]
        assert session.call("echo", {"text": "مرحبا 😀", "number": 10**30}) == {"text": "مرحبا 😀", "number": 10**30}
        with pytest.raises(RemoteError) as caught:
            session.call("no_such")
        assert caught.value.code == "unknown_function"
        with pytest.raises(RemoteError, match="oh no") as caught:
            session.call("fail", ["oh no"])
        assert caught.value.code == "failed"
        task = session.submit("sleep", [60], id="api-1")
        assert next(task.events(10.0))["event"] == "accepted"
        assert {"id": "api-1", "function": "sleep"}.items() <= session.list(1)[0].items()
        task.cancel()
        assert [event["event"] for event in task.events(10.0)][-1] == "cancelled"
        assert [event["event"] for event in session.attach("api-1", 1).events(10.0)][-1] == "cancelled"
        with pytest.raises(Unavailable, match="nothing was said of it"):
            session.submit("sleep", [60], on_disconnect="cancel").result(0.1)


def test_events_go_on_where_they_were_after_the_line_was_cut_again_and_again(server: Server, proxy: Proxy, session: Session) -> None:
    task = session.submit("countdown", {"start": 40, "interval": 0.02})
    told = []
    for event in task.events(10.0):
        told.append(event)
        if event["seq"] in (4, 11, 12, 30):
            proxy.cut()
            wait_until(lambda: proxy.refused >= 2)
            proxy.mend()
    check_story(told)
    assert [event["value"] for event in told if event["event"] == "output"] == list(range(40, -1, -1))


def test_what_is_submitted_and_cancelled_while_the_line_is_cut_happens_once_when_it_is_mended(
    server: Server, proxy: Proxy, session: Session, gate: Path
) -> None:
    waiting = session.submit("gated", {"gate": "never"}, id="waits")
    wait_until(lambda: waiting.state == "started")
    proxy.cut()
    wait_until(lambda: proxy.refused >= 1)
    tasks = [session.submit("mark", {"note": str(number)}) for number in range(20)]
    waiting.cancel()
    proxy.mend()
    for task in tasks:
        task.result(10.0)
    with pytest.raises(RemoteError) as caught:
        waiting.result(10.0)
    assert caught.value.code == "cancelled"
    assert [runs(server)[task.id] for task in tasks] == [1] * 20


def test_a_line_that_is_cut_under_a_flood_loses_and_doubles_nothing(server: Server, proxy: Proxy, session: Session) -> None:
    tasks: list[RemoteTask] = []
    for round_ in range(4):
        new = [session.submit("mark", {"note": f"{round_} {number}"}) for number in range(100)]
        wait_until(lambda some=new[50]: some.seq > 0)  # type: ignore[misc]
        tasks += new
        proxy.cut()
        proxy.mend()
    for task in tasks:
        check_story(list(task.events(20.0)))
    assert {runs(server)[task.id] for task in tasks} == {1}


def test_a_message_over_the_gateways_limit_is_refused_and_the_others_go_on(session: Session) -> None:
    large = session.submit("echo", {"text": "x" * 20_000})
    small = session.submit("echo", {"text": "x"})
    with pytest.raises(RemoteError) as caught:
        large.result(10.0)
    assert caught.value.code == "too_large"
    assert small.result(10.0) == {"text": "x"}


def test_a_gateway_that_stands_still_is_noticed_and_what_it_ran_is_heard_of(server: Server) -> None:
    pid = server.gateway_pid()
    with Session(server.ws_url, pace=replace(HASTE, quiet=0.2, patience=0.3)) as session:
        task = session.submit("sleep", [0.3])
        wait_until(lambda: task.state == "started")
        os.kill(pid, signal.SIGSTOP)
        try:
            wait_until(lambda: not session._conversation._is_open)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert task.result(10.0) == 0.3


def test_threads_may_share_a_session(session: Session) -> None:
    with ThreadPoolExecutor(16) as threads:
        assert list(threads.map(lambda number: session.call("echo", {"n": number}), range(200))) == [{"n": number} for number in range(200)]
    assert session._conversation._unfinished == {}


def test_a_session_leaves_no_thread_behind(server: Server) -> None:
    before = threading.active_count()
    for _ in range(3):
        with Session(server.ws_url) as session:
            session.call("echo")
    wait_until(lambda: threading.active_count() <= before)  # fewer, where one of a test before has ended meanwhile


def test_a_gateway_on_a_unix_socket(tmp_path: Path) -> None:
    running = Server("--workers", "1", "--ws", f"unix:{tmp_path}/ws.sock")
    try:
        with Session(f"unix:{tmp_path}/ws.sock") as session:
            assert session.call("echo", {"n": 1}) == {"n": 1}
    finally:
        running.clean()


UNDER_GEVENT = """
from gevent import monkey; monkey.patch_all()
import sys, time, gevent
from app.remote import Session
from app.remote.task import RemoteTask

ticks = []

def tick():
    while True:
        ticks.append(1)
        gevent.sleep(0.01)

ticking = gevent.spawn(tick)
began = time.monotonic()
with Session(sys.argv[1]) as session:
    calls = [gevent.spawn(session.call, "sleep", [0.3]) for _ in range(30)]
    assert [call.get() for call in calls] == [0.3] * 30
    assert time.monotonic() - began < 4, "they waited for each other"
    assert len(ticks) > 5, "the hub was held"
    assert [event["event"] for event in session.run("countdown", [1])][-1] == "succeeded"
print("done")
"""


def test_greenlets_may_share_a_session_and_nothing_holds_their_hub(server: Server) -> None:
    command = [sys.executable, "-W", "error", "-c", UNDER_GEVENT, server.ws_url]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert (ran.stdout, ran.stderr) == ("done\n", "")


def test_a_proxy_of_the_environment_is_not_asked_for_the_way_to_this_machine(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "example.org")
    with Session(server.ws_url) as session:
        assert session.call("echo") == {}


def test_it_says_why_it_is_not_let_in(server: Server) -> None:
    with pytest.raises(Unavailable, match="HTTP status 404"):
        Session(server.ws_url + "nowhere")
