"""Mails that are refused for now, with real processes: tried again without a slot meanwhile; never after a worker died with one."""

import base64
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import pytest
import websocket

from tests.certificates import Authority, make_authority
from tests.harness import ROOT, Process, Server, TextClient, WsClient, wait_until
from tests.mailservers import PASSWORD, USER, Received, aiosmtpd_server
from tests.postoffice import PostOffice

Start = Callable[..., Server]
MAIL = {"from": "a@x.org", "to": "user@y.org", "contents": "hello"}
SOON = ("--task", "soon=workers.tasks.mail:send_mail;attempts=3;backoff=0.2")


@pytest.fixture(scope="module")
def post() -> Iterator[Received]:
    with aiosmtpd_server() as received:
        yield received


@pytest.fixture(scope="module")
def mail_server(post: Received) -> Iterator[Server]:
    """With one slot in all, and a `soon` that is `send_mail` with a shorter back-off."""
    running = Server("--workers", "1", "--concurrency", "1", *SOON, "--smtp-url", post.url)
    yield running
    running.clean()


@pytest.fixture
def browser(mail_server: Server, post: Received) -> Iterator[WsClient]:
    post.envelopes.clear()
    post.greylist.clear()
    post.asked.clear()
    with WsClient(mail_server.ws_url) as client:
        yield client


def events(client: WsClient, task_id: str) -> list[Any]:
    client.final(task_id)
    return [message for message in client.messages if message.get("id") == task_id]


def test_a_greylisted_mail_is_tried_again_and_sent_once(browser: WsClient, post: Received) -> None:
    post.greylist["user@y.org"] = 2
    browser.send({"id": "grey", "function": "soon", "args": MAIL})
    told = events(browser, "grey")
    assert [event["event"] for event in told] == ["accepted", "started", "retrying", "started", "retrying", "started", "succeeded"]
    assert told[2]["error"] == {
        "code": "failed",
        "message": "the mail server refused the recipient: 451 4.7.1 greylisted, come again",
        "smtp_code": 451,
    }
    assert [0.74 * base <= event["after"] <= 1.26 * base for event, base in ((told[2], 0.2), (told[4], 0.4))] == [True, True]
    assert told[-1]["result"] == {"sent": 1}
    assert post.recipients() == ["user@y.org"]


def test_one_that_is_put_off_too_often_fails_as_the_server_said(browser: WsClient, post: Received) -> None:
    post.greylist["user@y.org"] = 1000
    browser.send({"id": "never", "function": "soon", "args": MAIL})
    last = events(browser, "never")[-1]
    assert (last["event"], last["attempt"], last["error"]["smtp_code"]) == ("failed", 3, 451)
    assert post.asked["user@y.org"] == 3


def test_one_that_is_refused_for_good_has_failed_at_once(browser: WsClient, post: Received) -> None:
    browser.send({"id": "gone", "function": "soon", "args": MAIL | {"to": "nobody@y.org"}})
    told = events(browser, "gone")
    assert [event["event"] for event in told] == ["accepted", "started", "failed"]
    assert told[-1]["error"]["smtp_code"] == 550
    assert post.asked["nobody@y.org"] == 1


def test_while_a_mail_waits_the_slot_is_for_others(browser: WsClient, post: Received) -> None:
    """`send_mail` itself waits for 10 s: that is the only slot there is."""
    post.greylist["user@y.org"] = 1000
    browser.send({"id": "waits", "function": "send_mail", "args": MAIL})
    waiting = browser.until(lambda message: message.get("event") == "retrying")
    assert 7.4 <= waiting["after"] <= 12.6
    browser.send({"id": "other", "function": "send_mail", "args": MAIL | {"to": "other@y.org"}})
    assert browser.final("other")["event"] == "succeeded"
    browser.send({"id": "waits", "cancel": True})
    assert browser.final("waits")["event"] == "cancelled"
    assert post.recipients() == ["other@y.org"]


def test_a_mail_that_waits_survives_the_gateway(start_server: Start, post: Received) -> None:
    post.greylist["survivor@y.org"] = 1
    server = start_server("--workers", "1", "--task", "later=workers.tasks.mail:send_mail;attempts=3;backoff=1", "--smtp-url", post.url)
    with WsClient(server.ws_url) as client:
        client.send({"id": "waits", "function": "later", "args": MAIL | {"to": "survivor@y.org"}})
        client.until(lambda message: message.get("event") == "retrying")
    gateway = server.gateway_pid()
    os.kill(gateway, signal.SIGKILL)
    wait_until(lambda: server.gateway_pid() != gateway)
    with wait_until(lambda: connected(server.ws_url))[0] as client:
        client.send({"id": "waits", "attach": 0})
        last = client.final("waits")
    assert (last["event"], last["attempt"]) == ("succeeded", 2)
    assert post.recipients().count("survivor@y.org") == 1


def connected(url: str) -> list[WsClient]:
    """A browser, where there is a gateway yet."""
    with suppress(OSError, websocket.WebSocketException):
        return [WsClient(url)]
    return []


def test_a_direct_caller_is_told_at_once(mail_server: Server, post: Received) -> None:
    post.greylist["direct@y.org"] = 1000
    with TextClient(mail_server.text_address) as client:
        answer = client.ask({"function": "soon", "args": MAIL | {"to": "direct@y.org"}})
    assert answer["error"]["smtp_code"] == 451


def test_a_mailing_reports_each_that_was_not_sent(browser: WsClient, post: Received) -> None:
    addresses = ["one@y.org", "nobody@y.org", "two@y.org"]
    browser.send({"id": "many", "function": "send_mails", "args": MAIL | {"to": addresses, "subject": "hi"}})
    last = browser.final("many")
    message = "the mail server refused the recipient: 550 5.1.1 no such user"
    assert last["result"] == {"sent": 2, "not_sent": 1, "failed": [{"to": "nobody@y.org", "code": 550, "message": message}]}
    assert post.recipients() == ["one@y.org", "two@y.org"]


@pytest.mark.parametrize("function", ["send_mail", "send_mails"])
def test_a_worker_that_dies_with_a_mail_leaves_it_at_that(start_server: Start, function: str) -> None:
    """That the task may ask to be tried again does not make it one that is run again when its process dies."""
    with PostOffice() as office:
        server = start_server("--workers", "1", "--smtp-url", office.url)
        with WsClient(server.ws_url) as client:
            to = "a@y.org" if function == "send_mail" else ["a@y.org", "b@y.org"]
            client.send({"id": "dies", "function": function, "args": MAIL | {"to": to, "subject": "hi"}})
            wait_until(lambda: office.waiting > 0)
            os.kill(server.worker_pids()[0], signal.SIGKILL)
            assert client.final("dies")["event"] == "interrupted"
            office.allow(100)
            client.send({"id": "next", "function": "send_mail", "args": MAIL | {"to": "next@y.org"}})
            assert client.final("next")["event"] == "succeeded"
    assert office.received == {"a@y.org": 1, "next@y.org": 1}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("ca"))


def test_tls_and_a_login_go_with_each_way_to_run_a_task(start_server: Start, authority: Authority) -> None:
    ways = ("greenlet", "thread", "process")
    flags = [flag for way in ways for flag in ("--task", f"in_{way}=workers.tasks.mail:send_mail;run_in={way}")]
    bill = {"name": "bill.bin", "content": base64.b64encode(bytes(range(256)) * 100).decode()}
    with aiosmtpd_server(tls_context=authority.here, require_starttls=True, auth_required=True) as received:
        login = f"{quote(USER, safe='')}:{quote(PASSWORD, safe='')}"
        url = f"smtp://{login}@localhost:{received.port}/?starttls=1&cafile={authority.cafile}"
        server = start_server("--workers", "1", *flags, env={"SMTP_URL": url})
        with WsClient(server.ws_url) as client:
            for way in ways:
                client.send({"id": way, "function": f"in_{way}", "args": MAIL | {"to": f"{way}@y.org", "attachments": [bill]}})
                assert client.final(way)["result"] == {"sent": 1}
        server.stop()
    assert received.recipients() == [f"{way}@y.org" for way in ways]
    assert received.logins == [("PLAIN", USER)] * 3
    assert quote(PASSWORD, safe="") not in server.log()


def test_a_url_that_cannot_be_used_ends_the_start_and_is_not_repeated() -> None:
    command = [sys.executable, str(ROOT / "run.py"), "worker", "--text", "127.0.0.1:0"]
    process = Process(command, env={"SMTP_URL": "smtp://ann:sesame@mail.example.org"})
    try:
        assert process.wait() == 2
        assert "would send the password in clear to mail.example.org:25" in process.log()
        assert "sesame" not in process.log()
    finally:
        process.clean()
