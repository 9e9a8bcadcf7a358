"""One letter to many: one bad address stops nobody, what is refused for now is tried again, and nobody gets two."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from app.errors import Failed
from tests.mailservers import Peer, Received, ScriptedServer, aiosmtpd_server
from workers import mailing
from workers.context import CURRENT, TaskContext, TimeLimitExceeded
from workers.letter import Letter, mailbox
from workers.mailer import SmtpMailer
from workers.mailing import MOST_NAMED, ROUNDS, Mailing
from workers.smtp import NoConnection
from workers.smtp_server import SmtpServer


class Watched(TaskContext):
    """A task whose progress is written down, and whose time is up once it waits for the `late`th time."""

    __slots__ = ("late", "notes", "said")

    def __init__(self) -> None:
        super().__init__("1", "send_mails", 1, "")
        self.said: list[tuple[float, float | None]] = []
        self.notes: list[str] = []
        self.late = 0

    def progress(self, done: float, total: float | None = None, note: str | None = None) -> None:
        if note is None:
            self.said.append((done, total))
        else:
            self.notes.append(note)
            if len(self.notes) == self.late:
                self.interrupt = TimeLimitExceeded("over its time limit")


@pytest.fixture
def task() -> Iterator[Watched]:
    watched = Watched()
    token = CURRENT.set(watched)
    yield watched
    CURRENT.reset(token)


@pytest.fixture(autouse=True)
def no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailing, "BACK_OFF", 0.001)


@pytest.fixture
def server() -> Iterator[Received]:
    with aiosmtpd_server() as received:
        yield received


@pytest.fixture
def mailer(server: Received) -> Iterator[SmtpMailer]:
    with closing_mailer(server.url) as one:
        yield one


class closing_mailer:  # noqa: N801 - used as a function
    """A mailer whose connections are closed at the end, so that no server waits for them."""

    def __init__(self, url: str) -> None:
        self._mailer = SmtpMailer(SmtpServer(url))

    def __enter__(self) -> SmtpMailer:
        return self._mailer

    def __exit__(self, *_: object) -> None:
        while (connection := self._mailer._take_kept()) is not None:
            connection.close()


def send(mailer: SmtpMailer, *recipients: str) -> dict[str, Any]:
    one = Mailing(mailer, Letter("a@x.org", "hi", "hello"), [mailbox(recipient, "to") for recipient in recipients])
    one.send()
    return one.report()


def users(count: int) -> list[str]:
    return [f"user{number}@y.org" for number in range(count)]


def test_many_mails_take_one_connection_and_tell_how_far_they_are(server: Received, mailer: SmtpMailer, task: Watched) -> None:
    assert send(mailer, *users(30)) == {"sent": 30, "not_sent": 0, "failed": []}
    assert server.recipients() == users(30)
    assert len({re.search(rb"Message-ID: (.*)", envelope.content)[1] for envelope in server.envelopes}) == 30  # type: ignore[index]
    assert len(server.connections) == 1
    assert task.said == [(number, 30) for number in range(1, 31)]
    assert task.notes == []


def test_no_recipients_are_no_mails(mailer: SmtpMailer) -> None:
    assert send(mailer) == {"sent": 0, "not_sent": 0, "failed": []}


def test_one_bad_address_of_a_thousand_is_reported_and_the_rest_are_sent(server: Received, mailer: SmtpMailer, task: Watched) -> None:
    good = users(999)
    report = send(mailer, *good[:500], "Nobody <nobody@y.org>", *good[500:])
    message = "the mail server refused the recipient: 550 5.1.1 no such user"
    assert report == {"sent": 999, "not_sent": 1, "failed": [{"to": "nobody@y.org", "code": 550, "message": message}]}
    assert server.recipients() == good
    assert (server.asked["nobody@y.org"], len(server.connections)) == (1, 1)
    assert task.said[-1] == (1000, 1000)


def test_it_fails_where_no_mail_at_all_was_taken_and_the_report_stands_in_the_error(mailer: SmtpMailer) -> None:
    with pytest.raises(Failed, match=r"none of 2 mails was taken; nobody1@y\.org: .*no such user") as caught:
        send(mailer, "nobody1@y.org", "nobody2@y.org")
    assert (caught.value.details["sent"], caught.value.details["not_sent"]) == (0, 2)
    assert [entry["to"] for entry in caught.value.details["failed"]] == ["nobody1@y.org", "nobody2@y.org"]


def test_a_report_names_so_many_and_counts_the_rest(mailer: SmtpMailer) -> None:
    report = send(mailer, "b@y.org", *(f"nobody{number}@y.org" for number in range(MOST_NAMED + 5)))
    assert (report["sent"], report["not_sent"], len(report["failed"])) == (1, MOST_NAMED + 5, MOST_NAMED)


def test_who_is_greylisted_is_tried_again_and_nobody_gets_two(server: Received, mailer: SmtpMailer, task: Watched) -> None:
    server.greylist.update({"user3@y.org": 1, "user7@y.org": 2})
    assert send(mailer, *users(10), "nobody@y.org") == {
        "sent": 10,
        "not_sent": 1,
        "failed": [{"to": "nobody@y.org", "code": 550, "message": "the mail server refused the recipient: 550 5.1.1 no such user"}],
    }
    assert Counter(server.recipients()) == Counter(users(10))
    assert server.asked == Counter([*users(10), "nobody@y.org"]) + Counter({"user3@y.org": 1, "user7@y.org": 2})
    assert [note.partition(";")[0] for note in task.notes] == ["2 refused for now", "1 refused for now"]
    assert task.said == sorted(task.said)
    assert task.said[-1] == (11, 11)


def test_who_is_put_off_again_and_again_is_given_up(server: Received, mailer: SmtpMailer) -> None:
    server.greylist["user1@y.org"] = 1000
    report = send(mailer, *users(3))
    assert (report["sent"], report["not_sent"]) == (2, 1)
    assert (report["failed"][0]["to"], report["failed"][0]["code"]) == ("user1@y.org", 451)
    assert server.asked["user1@y.org"] == ROUNDS


def test_rounds_are_further_and_further_apart(server: Received, mailer: SmtpMailer, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(mailing, "BACK_OFF", 10.0)

    def wait(mailing: Mailing, seconds: float) -> bool:
        waits.append(seconds)
        return True

    monkeypatch.setattr(Mailing, "_wait", wait)
    server.greylist["user1@y.org"] = 1000
    send(mailer, *users(2))
    assert [0.75 <= wait / base <= 1.25 for wait, base in zip(waits, [10, 20, 40, 80, 160], strict=True)] == [True] * 5


def test_a_time_limit_that_ends_the_wait_ends_the_mailing_with_its_report(
    server: Received, mailer: SmtpMailer, task: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mailing, "BACK_OFF", 0.05)
    server.greylist["user1@y.org"] = 1000
    task.late = 2
    report = send(mailer, *users(3))
    assert (report["sent"], report["failed"][0]["to"], report["failed"][0]["code"]) == (2, "user1@y.org", 451)
    assert server.asked["user1@y.org"] == 2


def test_a_server_that_is_not_there_stops_it_at_once() -> None:
    with aiosmtpd_server() as gone:
        pass
    with closing_mailer(gone.url) as mailer, pytest.raises(NoConnection, match=r"no connection to .*refused; nothing was sent") as caught:
        send(mailer, "b@y.org", "c@y.org")
    assert caught.value.transient


def test_a_server_that_goes_and_comes_back_in_the_middle_is_awaited(task: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    def takes_two(peer: Peer) -> None:
        peer.greet()
        peer.take()
        peer.take()

    def away(peer: Peer) -> None:
        peer.say("421 4.3.2 going down")

    def takes_three(peer: Peer) -> None:
        peer.greet()
        for _ in range(3):
            peer.take()

    with ScriptedServer(takes_two, away, away, takes_three) as server, closing_mailer(server.url) as mailer:
        assert send(mailer, *users(5)) == {"sent": 5, "not_sent": 0, "failed": []}
    assert server.connections == 4
    assert [note.partition(";")[0] for note in task.notes] == ["3 refused for now"] * 2


def test_who_may_have_got_the_mail_is_reported_and_not_tried_again() -> None:
    def dies_with_the_mail(peer: Peer) -> bytes:
        peer.greet()
        for command, reply in (("MAIL FROM:", "250 ok"), ("RCPT TO:", "250 ok"), ("DATA", "354 go on")):
            peer.hear(command)
            peer.say(reply)
        return peer.message()

    def takes_one(peer: Peer) -> bytes:
        peer.greet()
        return peer.take()

    with ScriptedServer(dies_with_the_mail, takes_one) as server, closing_mailer(server.url) as mailer:
        report = send(mailer, *users(2))
    assert (report["sent"], report["failed"][0]["to"], report["failed"][0]["code"]) == (1, "user0@y.org", None)
    assert "may or may not have been sent" in report["failed"][0]["message"]
    assert [message.count(b"To: user0@y.org") for message in server.results] == [1, 0]  # type: ignore[attr-defined]


def test_a_server_that_is_lost_with_a_mail_that_it_may_have_is_no_reason_to_begin_again() -> None:
    def dies_with_the_mail(peer: Peer) -> None:
        peer.greet()
        for command, reply in (("MAIL FROM:", "250 ok"), ("RCPT TO:", "250 ok"), ("DATA", "354 go on")):
            peer.hear(command)
            peer.say(reply)
        peer.message()

    with ScriptedServer(dies_with_the_mail) as server, closing_mailer(server.url) as mailer, pytest.raises(Failed) as caught:
        send(mailer, *users(2))
    assert not isinstance(caught.value, NoConnection)
    assert [entry["to"] for entry in caught.value.details["failed"]] == users(2)


def test_a_wrong_password_is_tried_once_and_not_once_for_each_mail() -> None:
    def refuses(peer: Peer) -> None:
        peer.greet("AUTH PLAIN LOGIN")
        peer.hear("AUTH PLAIN ")
        peer.say("535 5.7.8 wrong")
        assert peer.over()

    with (
        ScriptedServer(refuses) as server,
        closing_mailer(f"smtp://ann:wrong@127.0.0.1:{server.port}") as mailer,
        pytest.raises(NoConnection, match="refused the user or password: 535") as caught,
    ):
        send(mailer, *users(3))
    assert not caught.value.transient
    assert server.connections == 1
