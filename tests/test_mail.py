"""The mail tasks: by SMTP to a server that others wrote, and into a Maildir that the standard library reads."""

import base64
import email.policy
import mailbox
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from email import message_from_bytes
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from app.errors import BadArguments, Failed
from tests.certificates import make_authority
from tests.mailservers import Received, aiosmtpd_server
from workers import mailer
from workers.context import CURRENT, Retry, TaskContext
from workers.registry import REGISTRY
from workers.tasks.mail import send_mail, send_mails

SUBJECT = "مرحبا 🎉"
CONTENTS = "السلام عليكم\n.\n..two dots\n🎉 bye"
SHARED_CONNECTIONS = """
from gevent import monkey
monkey.patch_all()
import gevent
from workers.tasks.mail import send_mail
tasks = [gevent.spawn(send_mail, "a@x.org", f"user{n}@y.org", f"for user{n}", "hi") for n in range(200)]
gevent.joinall(tasks, raise_error=True)
hub = gevent.get_hub()
hub.threadpool.apply(send_mail, ("a@x.org", "thread@y.org", "for thread", "hi"))
"""


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Somewhere of its own, and no server unless the test has one."""
    monkeypatch.setenv("HANDOFF_DATA_DIR", str(tmp_path / "data"))
    for name in ("SMTP_URL", "HANDOFF_SMTP_URL"):
        monkeypatch.delenv(name, raising=False)
    yield tmp_path / "data"
    mailer._mailer_in.cache_clear()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Received]:
    with aiosmtpd_server() as received:
        monkeypatch.setenv("SMTP_URL", received.url)
        yield received
        forget_connections(received.url)


def forget_connections(url: str) -> None:
    """So that the server has none left to wait for."""
    kept: Any = mailer.mailer_for(url, os.environ["HANDOFF_DATA_DIR"])
    while (connection := kept._take_kept()) is not None:
        connection.close()


def parse(content: bytes) -> EmailMessage:
    message = message_from_bytes(content, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def text_of(message: EmailMessage) -> str:
    content = message.get_content()
    assert isinstance(content, str)
    return content.replace("\r\n", "\n")


def test_a_mail_reaches_the_server_as_it_was_written(server: Received) -> None:
    assert send_mail("Ann أحمد <a@x.org>", "b@y.org", CONTENTS, SUBJECT) == {"sent": 1}
    (envelope,) = server.envelopes
    assert (envelope.mail_from, envelope.rcpt_tos) == ("a@x.org", ["b@y.org"])
    message = parse(envelope.content)
    assert (message["Subject"], message["To"], message["From"]) == (SUBJECT, "b@y.org", "Ann أحمد <a@x.org>")
    assert text_of(message) == CONTENTS + "\n"


@pytest.mark.parametrize("contents", ["", ".", ".\n.", "\n.\n\n", "..", "a\n.b\n..c", "line " * 3000])
def test_dots_and_long_lines_arrive(server: Received, contents: str) -> None:
    send_mail("a@x.org", "b@y.org", contents)
    assert text_of(parse(server.envelopes[0].content)).removesuffix("\n") == contents.removesuffix("\n")


def test_addresses_that_are_not_ascii_reach_a_server_that_knows_them(server: Received) -> None:
    send_mail("مدير@x.org", "محمد <محمد@مثال.إختبار>", "hi")
    (envelope,) = server.envelopes
    assert (envelope.mail_from, envelope.rcpt_tos) == ("مدير@x.org", ["محمد@xn--mgbh0fb.xn--kgbechtv"])


def test_addresses_that_are_not_ascii_are_a_clear_failure_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    with aiosmtpd_server(smtputf8=False) as received:
        monkeypatch.setenv("SMTP_URL", received.url)
        with pytest.raises(Failed, match="no SMTPUTF8"):
            send_mail("a@x.org", "محمد@y.org", "hi")
        forget_connections(received.url)
    assert received.envelopes == []


def test_a_refused_recipient_is_a_clear_failure(server: Received) -> None:
    with pytest.raises(Failed, match=r"refused the recipient: 550 5\.1\.1 no such user") as caught:
        send_mail("a@x.org", "nobody@y.org", "hello")
    assert caught.value.as_wire()["code"] == "failed"
    assert caught.value.details == {"smtp_code": 550}


def test_an_address_that_cannot_be_read_is_reported_and_the_rest_are_sent(server: Received) -> None:
    report = send_mails("a@x.org", ["b@y.org", "nobody", "c@y.org", "d@y.org\r\nBcc: e@y.org"], "hi", "hello")
    unread = ['"to[1]" has no @', '"to[3]" has a line break or a NUL in it, which would end the header']
    assert (report["sent"], report["not_sent"], [each["message"] for each in report["failed"]]) == (2, 2, unread)
    assert report["failed"][0] == {"to": "nobody", "code": None, "message": unread[0]}
    assert server.recipients() == ["b@y.org", "c@y.org"]


def test_nothing_but_addresses_that_cannot_be_read_are_bad_arguments(server: Received) -> None:
    with pytest.raises(BadArguments, match=r'"to\[0\]" has no @') as caught:
        send_mails("a@x.org", ["nobody", "either"], "hi", "hello")
    assert caught.value.details == {"parameter": "to[0]"}
    assert server.envelopes == []


@pytest.mark.parametrize("evil", ["\r\nBcc: everybody@x.org", "\nX: y", "\r", "\0"])
@pytest.mark.parametrize("parameter", ["from_", "to", "subject"])
def test_no_header_can_be_injected(server: Received, parameter: str, evil: str) -> None:
    arguments: dict[str, Any] = {"from_": "a@x.org", "to": "b@y.org", "subject": "hi", "contents": "hello"}
    arguments[parameter] += evil
    with pytest.raises(BadArguments) as caught:
        send_mail(**arguments)
    assert caught.value.details == {"parameter": parameter.rstrip("_")}
    assert server.envelopes == []


def test_contents_may_look_like_anything(server: Received) -> None:
    contents = "\r\n.\r\nMAIL FROM:<evil@x.org>\r\nRCPT TO:<everybody@x.org>\r\nDATA\r\nBcc: x@x.org"
    send_mail("a@x.org", "b@y.org", contents)
    (envelope,) = server.envelopes
    assert envelope.rcpt_tos == ["b@y.org"]
    assert text_of(parse(envelope.content)) == contents.replace("\r\n", "\n") + "\n"


@pytest.mark.parametrize("safe", [False, True], ids=["in clear", "in TLS"])
def test_concurrent_tasks_never_share_a_connection_and_each_mail_arrives_once(safe: bool, tmp_path: Path) -> None:
    authority = make_authority(tmp_path) if safe else None
    with aiosmtpd_server(tls=authority.here if authority else None) as server:
        server.delay = 0.01
        url = f"smtps://127.0.0.1:{server.port}/?cafile={authority.cafile}" if authority else server.url
        command = [sys.executable, "-W", "error", "-c", SHARED_CONNECTIONS]
        subprocess.run(command, check=True, timeout=50, cwd=Path(__file__).parents[1], env=os.environ | {"SMTP_URL": url})
    expected = Counter([f"user{number}" for number in range(200)] + ["thread"])
    assert Counter(envelope.rcpt_tos[0].partition("@")[0] for envelope in server.envelopes) == expected
    for envelope in server.envelopes:
        assert text_of(parse(envelope.content)) == f"for {envelope.rcpt_tos[0].partition('@')[0]}\n"


def test_without_a_server_mail_goes_into_a_maildir(data_dir: Path) -> None:
    send_mail("a@x.org", "أحمد <b@y.org>", CONTENTS, SUBJECT)
    send_mails("a@x.org", ["c@y.org", "d@y.org"], "hi", "From here\n>From there")
    outbox = mailbox.Maildir(data_dir / "outbox", create=False)
    messages = {str(message["To"]): message for message in (parse(outbox.get_bytes(key)) for key in outbox.iterkeys())}
    assert set(messages) == {"أحمد <b@y.org>", "c@y.org", "d@y.org"}
    first = messages["أحمد <b@y.org>"]
    assert (first["Subject"], first["Return-Path"], text_of(first)) == (SUBJECT, "<a@x.org>", CONTENTS + "\n")
    assert text_of(messages["c@y.org"]) == "From here\n>From there\n"
    assert first.defects == []


@pytest.mark.parametrize("task", ["send_mail", "send_mails"])
@pytest.mark.parametrize("way", ["smtp", "maildir"])
def test_html_and_attachments_arrive_either_way(way: str, task: str, data_dir: Path, request: pytest.FixtureRequest) -> None:
    received = request.getfixturevalue("server") if way == "smtp" else None
    bill = {"name": "فاتورة.pdf", "type": "application/pdf", "content": base64.b64encode(b"%PDF\r\n.\r\n").decode()}
    more: dict[str, Any] = {"html": "<p>.\n<b>hi", "attachments": [bill], "reply_to": "help@x.org"}
    if task == "send_mail":
        send_mail("a@x.org", "b@y.org", CONTENTS, SUBJECT, **more)
    else:
        send_mails("a@x.org", ["b@y.org"], SUBJECT, CONTENTS, **more)
    message = parse(received.envelopes[0].content if received else next((data_dir / "outbox" / "new").iterdir()).read_bytes())
    texts = [text_of(part) for kind in ("plain", "html") if (part := message.get_body([kind])) is not None]  # type: ignore[arg-type]
    assert texts == [CONTENTS + "\n", "<p>.\n<b>hi\n"]
    (part,) = message.iter_attachments()
    assert (part.get_filename(), part.get_content_type(), part.get_content()) == ("فاتورة.pdf", "application/pdf", b"%PDF\r\n.\r\n")
    assert message["Reply-To"] == "help@x.org"


@pytest.mark.parametrize(("recipient", "later"), [("user@y.org", True), ("nobody@y.org", False)])
def test_what_is_refused_for_now_asks_to_be_tried_again(server: Received, recipient: str, later: bool) -> None:
    server.greylist["user@y.org"] = 1
    with pytest.raises(Failed) as caught:
        send_mail("a@x.org", recipient, "hello")
    assert isinstance(caught.value, Retry) is later
    assert caught.value.details == {"smtp_code": 451 if later else 550}


@pytest.mark.parametrize("task", [send_mail, send_mails])
def test_a_server_that_is_away_asks_for_the_whole_to_be_tried_again(task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with aiosmtpd_server() as gone:
        monkeypatch.setenv("SMTP_URL", gone.url)
    with pytest.raises(Failed, match="no connection") as caught:
        task(from_="a@x.org", to="b@y.org" if task is send_mail else ["b@y.org"], subject="hi", contents="hello")
    assert isinstance(caught.value, Retry)


def test_the_outbox_is_private_and_holds_whole_mails_alone(data_dir: Path) -> None:
    send_mail("a@x.org", "b@y.org", "hello")
    outbox = data_dir / "outbox"
    (path,) = (outbox / "new").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.stat().st_mode & 0o777 for entry in (data_dir, outbox, outbox / "new", outbox / "tmp", outbox / "cur")] == [0o700] * 5
    assert list((outbox / "tmp").iterdir()) == []


def test_the_outbox_may_be_removed_at_any_time(data_dir: Path) -> None:
    send_mail("a@x.org", "b@y.org", "hello")
    (data_dir / "outbox").rename(data_dir / "old")
    send_mail("a@x.org", "b@y.org", "hello")
    assert len(list((data_dir / "outbox" / "new").iterdir())) == 1


def test_an_outbox_that_cannot_be_written_is_a_clear_failure(data_dir: Path) -> None:
    send_mail("a@x.org", "b@y.org", "hello")
    (data_dir / "outbox" / "tmp").rmdir()
    (data_dir / "outbox" / "tmp").write_text("in the way")
    with pytest.raises(Failed, match="cannot be written to the outbox: Not a directory"):
        send_mail("a@x.org", "b@y.org", "hello")


def test_the_task_says_where_the_data_directory_is(tmp_path: Path) -> None:
    token = CURRENT.set(TaskContext("1", "send_mail", 1, str(tmp_path / "other")))
    try:
        send_mail("a@x.org", "b@y.org", "hello")
    finally:
        CURRENT.reset(token)
    assert len(list((tmp_path / "other" / "outbox" / "new").iterdir())) == 1


def test_the_wire_calls_them_as_the_workerman_manual_does(server: Received) -> None:
    REGISTRY.load()
    function = REGISTRY.get("send_mail")
    positional, named = function.bind({"from": "a@x.org", "to": "b@y.org", "contents": "hi"})
    assert function.call(*positional, **named) == {"sent": 1}
    parameters = REGISTRY.get("send_mails").describe()["params"]
    assert [entry["name"] for entry in parameters if entry["required"]] == ["from", "to", "subject", "contents"]
    assert [entry["name"] for entry in parameters if not entry["required"]] == ["html", "attachments", "reply_to"]
    assert not function.options.retryable
