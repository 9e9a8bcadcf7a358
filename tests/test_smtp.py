"""SMTP as servers really speak it: connections are kept, what fails says why, and no mail is ever sent twice."""

import base64
import gc
import hmac
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from app.errors import Failed
from tests.mailservers import FULL, Peer, ScriptedServer
from workers import smtp
from workers.letter import Letter, Mail, mailbox
from workers.mailer import KEEP, SmtpMailer
from workers.smtp import NoConnection, Refused, Uncertain
from workers.smtp_server import SmtpServer


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """Sockets of mailers that are forgotten are closed within their test."""
    yield
    gc.collect()


def mail(recipient: str = "b@y.org", contents: str = "hello") -> Mail:
    return Letter("a@x.org", "hi", contents).to(mailbox(recipient, "to"))


def mailer(url: str) -> SmtpMailer:
    return SmtpMailer(SmtpServer(url))


def close(kept: SmtpMailer) -> None:
    while (connection := kept._take_kept()) is not None:
        connection.close()


def take_all(peer: Peer) -> list[bytes]:
    """Mails until the client goes."""
    peer.greet(*FULL)
    taken = []
    while line := peer._file.readline():
        assert line.startswith(b"MAIL")
        peer.say("250 ok")
        peer.hear("RCPT")
        peer.say("250 ok")
        peer.hear("DATA")
        peer.say("354 go on")
        taken.append(peer.message())
        peer.say("250 taken")
    return taken


def test_a_connection_is_kept_and_used_again() -> None:
    with ScriptedServer(take_all) as server:
        sender = mailer(server.url)
        for number in range(5):
            sender.send(mail(contents=f"number {number}"))
        close(sender)
        server.finish()
    assert server.connections == 1
    (taken,) = server.results
    assert isinstance(taken, list)
    assert [message.split(b"\r\n\r\n")[1] for message in taken] == [b"number %d\r\n" % number for number in range(5)]


def test_a_connection_not_used_for_long_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def once(peer: Peer) -> None:
        peer.greet()
        peer.take()
        assert peer.over()

    with ScriptedServer(once, once) as server:
        sender = mailer(server.url)
        sender.send(mail())
        sender._kept[0].used_at -= KEEP + 1
        sender.send(mail())
        close(sender)
    assert server.connections == 2


def said_421(peer: Peer) -> None:
    peer.say("421 4.4.2 idle for too long")


@pytest.mark.parametrize("farewell", [lambda peer: None, said_421], ids=["without a word", "with 421"])
def test_a_kept_connection_that_the_server_closed_is_replaced_and_the_mail_sent_once(farewell: object) -> None:
    def first(peer: Peer) -> bytes:
        peer.greet()
        message = peer.take()
        farewell(peer)  # type: ignore[operator]
        return message

    with ScriptedServer(first, take_all) as server:
        sender = mailer(server.url)
        sender.send(mail(contents="one"))
        server.finish()  # the server has closed it now
        sender.send(mail(contents="two"))
        close(sender)
    assert server.connections == 2
    one, others = server.results
    assert isinstance(one, bytes)
    assert isinstance(others, list)
    assert b"one" in one
    assert len(others) == 1
    assert b"two" in others[0]


@pytest.mark.parametrize("until", ["MAIL FROM:", "RCPT TO:", "DATA"])
def test_a_kept_connection_that_dies_in_mid_dialogue_is_replaced_as_nothing_was_taken(until: str) -> None:
    def first(peer: Peer) -> None:
        peer.greet()
        peer.take()
        for command in ("MAIL FROM:", "RCPT TO:", "DATA"):
            peer.hear(command)
            if command == until:
                return
            peer.say("250 ok")

    with ScriptedServer(first, take_all) as server:
        sender = mailer(server.url)
        sender.send(mail(contents="one"))
        sender.send(mail(contents="two"))
        close(sender)
    assert server.connections == 2
    assert isinstance(server.results[1], list)
    assert len(server.results[1]) == 1


@pytest.mark.parametrize("kept", [False, True])
def test_a_mail_that_may_have_been_taken_is_never_sent_again(kept: bool) -> None:
    def dies(peer: Peer) -> bytes:
        peer.greet()
        if kept:
            peer.take()
        for command, reply in (("MAIL FROM:", "250 ok"), ("RCPT TO:", "250 ok"), ("DATA", "354 go on")):
            peer.hear(command)
            peer.say(reply)
        return peer.message()

    with ScriptedServer(dies, take_all) as server:
        sender = mailer(server.url)
        if kept:
            sender.send(mail(contents="one"))
        with pytest.raises(Failed, match="may or may not have been sent"):
            sender.send(mail(contents="two"))
    assert server.connections == 1


def test_a_new_connection_that_is_lost_at_once_is_not_tried_again() -> None:
    def rude(peer: Peer) -> None:
        peer.greet()
        peer.hear("MAIL")

    with (
        ScriptedServer(rude, take_all) as server,
        pytest.raises(Failed, match=r"127\.0\.0\.1:\d+ ended the connection: .*nothing was sent"),
    ):
        mailer(server.url).send(mail())
    assert server.connections == 1


STEPS = (("MAIL FROM:", "the sender"), ("RCPT TO:", "the recipient"), ("DATA", "the message"))


@pytest.mark.parametrize("refused", [0, 1, 2])
def test_a_refusal_names_what_was_refused_and_leaves_the_connection_usable(refused: int) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        for command, _ in STEPS[:refused]:
            peer.hear(command)
            peer.say("250 ok")
        peer.hear(STEPS[refused][0])
        peer.say("550-5.7.1 not", "550 5.7.1 here")
        peer.hear("RSET")
        peer.say("250 forgotten")
        peer.take()
        assert peer.over()

    with ScriptedServer(script) as server:
        sender = mailer(server.url)
        with pytest.raises(Refused) as caught:
            sender.send(mail())
        sender.send(mail())
        close(sender)
    assert caught.value.message == f"the mail server refused {STEPS[refused][1]}: 550 5.7.1 not 5.7.1 here"
    assert caught.value.as_wire()["code"] == "failed"
    assert caught.value.details == {"smtp_code": 550}
    assert server.connections == 1


def test_a_message_refused_after_its_end_says_so_and_leaves_the_connection_usable() -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.take("552 too much")
        peer.take()
        assert peer.over()

    with ScriptedServer(script) as server:
        sender = mailer(server.url)
        with pytest.raises(Refused, match="refused the message: 552 too much"):
            sender.send(mail())
        sender.send(mail())
        close(sender)


def test_the_three_commands_go_in_one_where_the_server_takes_that() -> None:
    def script(peer: Peer) -> None:
        peer.greet("PIPELINING")
        for _ in range(2):
            for command, _ in STEPS:
                peer.hear(command)
            peer.say("250 ok", "250 ok", "354 go on")
            peer.message()
            peer.say("250 taken")
        assert peer.over()

    with ScriptedServer(script) as server:
        sender = mailer(server.url)
        sender.send(mail())
        sender.send(mail())
        close(sender)


def test_a_pipelined_refusal_leaves_the_connection_usable() -> None:
    def script(peer: Peer) -> None:
        peer.greet("PIPELINING")
        for command, _ in STEPS:
            peer.hear(command)
        peer.say("250 ok", "550 no such user", "503 no recipients")
        peer.hear("RSET")
        peer.say("250 forgotten")
        for command, _ in STEPS:
            peer.hear(command)
        peer.say("250 ok", "250 ok", "354 go on")
        peer.message()
        peer.say("250 taken")

    with ScriptedServer(script) as server:
        sender = mailer(server.url)
        with pytest.raises(Refused, match="refused the recipient: 550 no such user"):
            sender.send(mail())
        sender.send(mail())
        close(sender)
    assert server.connections == 1


def test_a_server_that_waits_for_a_message_without_a_recipient_gets_none() -> None:
    def script(peer: Peer) -> None:
        peer.greet("PIPELINING")
        for command, _ in STEPS:
            peer.hear(command)
        peer.say("250 ok", "550 no such user", "354 go on all the same")
        assert peer.over()

    with ScriptedServer(script) as server, pytest.raises(Refused, match="no such user"):
        mailer(server.url).send(mail())


def test_what_interrupts_a_task_in_mid_mail_closes_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(BaseException):
        pass

    def script(peer: Peer) -> None:
        peer.greet()
        for command, reply in (("MAIL FROM:", "250 ok"), ("RCPT TO:", "250 ok"), ("DATA", "354 go on")):
            peer.hear(command)
            peer.say(reply)
        assert peer.over()

    def interrupted(self: object, message: bytes) -> None:
        raise Interrupted

    with ScriptedServer(script) as server:
        sender = mailer(server.url)
        monkeypatch.setattr("workers.smtp.SmtpConnection.hand_over", interrupted)
        with pytest.raises(Interrupted):
            sender.send(mail())
        assert sender._take_kept() is None


def test_our_own_name_takes_no_dns(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_dns(*args: object) -> str:
        raise AssertionError("DNS was asked")

    for name in ("getfqdn", "gethostbyname", "gethostbyaddr"):
        monkeypatch.setattr(socket, name, no_dns)
    monkeypatch.setattr(socket, "gethostname", lambda: "shortname")

    def script(peer: Peer) -> str:
        peer.say("220 hello")
        return peer.hear("EHLO")

    with ScriptedServer(script) as server, pytest.raises(Failed):
        mailer(server.url).send(mail())
    assert server.results == ["ehlo [127.0.0.1]"]


def test_an_address_that_is_not_ascii_is_sent_to_a_server_that_knows_and_refused_for_one_that_does_not() -> None:
    arabic = mail(recipient="محمد@y.org")

    def knows(peer: Peer) -> list[str]:
        peer.greet(*FULL)
        heard = [peer.hear("MAIL FROM:")]
        peer.say("250 ok")
        heard.append(peer.hear("RCPT TO:"))
        peer.say("250 ok")
        peer.hear("DATA")
        peer.say("354 go on")
        peer.message()
        peer.say("250 taken")
        return heard

    def knows_not(peer: Peer) -> None:
        peer.greet("8BITMIME")
        peer.hear("RSET")
        peer.say("250 ok")
        peer.take()

    with ScriptedServer(knows, knows_not) as server:
        sender = mailer(server.url)
        sender.send(arabic)
        close(sender)
        other = mailer(server.url)
        with pytest.raises(Refused, match="SMTPUTF8"):
            other.send(arabic)
        other.send(mail())
        close(other)
    assert ["MAIL FROM:<a@x.org> SMTPUTF8 BODY=8BITMIME", "RCPT TO:<محمد@y.org>"] in server.results


def test_a_server_that_is_not_there_or_not_a_mail_server_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(Failed, match=f"no connection to the mail server 127.0.0.1:{port}: .*refused; nothing was sent"):
        mailer(f"smtp://127.0.0.1:{port}").send(mail())
    with ScriptedServer(lambda peer: peer.say("HTTP/1.1 400 Bad Request")) as server, pytest.raises(Failed, match="no SMTP"):
        mailer(server.url).send(mail())
    with ScriptedServer(lambda peer: peer.say("554 go away")) as server, pytest.raises(NoConnection, match="the connection: 554 go away"):
        mailer(server.url).send(mail())


def test_the_user_and_password_of_the_url_are_used_and_never_told() -> None:
    def script(answer: str) -> object:
        def play(peer: Peer) -> str:
            peer.greet("AUTH PLAIN")
            words = peer.hear("AUTH PLAIN ").removeprefix("AUTH PLAIN ")
            peer.say(answer)
            if answer.startswith("235"):
                peer.take()
            return base64.b64decode(words).decode()

        return play

    with ScriptedServer(script("235 welcome"), script("535 wrong")) as server:  # type: ignore[arg-type]
        url = f"smtp://ann%40x.org:p%3Ass@127.0.0.1:{server.port}"
        sender = mailer(url)
        sender.send(mail())
        close(sender)
        with pytest.raises(NoConnection) as caught:
            mailer(url).send(mail())
    assert server.results == ["\0ann@x.org\0p:ss"] * 2
    assert caught.value.message == f"the mail server 127.0.0.1:{server.port} refused the user or password: 535 wrong; nothing was sent"
    assert caught.value.details == {"smtp_code": 535}


# Servers that hang up, or take their time.


def says_until(command: str) -> Callable[[Peer], None]:
    """A server that does all right, and when it hears this command hangs up; `220` is for not even greeting."""

    def play(peer: Peer) -> None:
        if command == "220":
            return
        peer.say("220 hello")
        steps = (
            ("EHLO", "250-test\r\n250 AUTH PLAIN"),
            ("AUTH", "235 welcome"),
            ("MAIL", "250 ok"),
            ("RCPT", "250 ok"),
            ("DATA", "354 go on"),
        )
        for heard, answer in steps:
            peer.hear(heard)
            if heard == command:
                return
            peer.say(answer)
        peer.message()

    return play


def then_silent(play: Callable[[Peer], None]) -> Callable[[Peer], None]:
    """The same, but it only says no more."""

    def silent(peer: Peer) -> None:
        play(peer)
        peer.over()

    return silent


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONNECT_TIMEOUT", "REPLY_TIMEOUT", "TAKE_TIMEOUT"):
        monkeypatch.setattr(smtp, name, 0.2)


def hung_up(play: Callable[[Peer], None]) -> Callable[[Peer], None]:
    return play


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("how", [hung_up, then_silent])
@pytest.mark.parametrize("command", ["220", "EHLO", "AUTH", "MAIL", "RCPT", "DATA"])
def test_a_server_that_hangs_up_or_falls_silent_before_the_message_has_not_got_it(
    command: str, how: Callable[[Callable[[Peer], None]], Callable[[Peer], None]]
) -> None:
    with ScriptedServer(how(says_until(command))) as server, pytest.raises(NoConnection, match=r"; nothing was sent$") as caught:
        mailer(f"smtp://ann:sesame@127.0.0.1:{server.port}").send(mail())
    assert caught.value.transient


@pytest.mark.parametrize("how", [hung_up, then_silent])
def test_a_server_that_hangs_up_or_falls_silent_after_the_message_may_have_got_it(
    how: Callable[[Callable[[Peer], None]], Callable[[Peer], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smtp, "TAKE_TIMEOUT", 0.2)
    with ScriptedServer(how(says_until("nothing"))) as server, pytest.raises(Uncertain, match="may or may not have been sent"):
        mailer(f"smtp://ann:sesame@127.0.0.1:{server.port}").send(mail())


def test_a_server_that_answers_the_message_with_something_else_may_have_got_it() -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.take("HTTP/1.1 500 no")

    with ScriptedServer(script) as server, pytest.raises(Uncertain, match=r"an answer that is no SMTP: .*may or may not have been sent"):
        mailer(server.url).send(mail())


def test_a_server_that_hangs_up_in_the_middle_of_the_message_has_not_got_it() -> None:
    """The dot at its end, which makes it a mail, has never left."""

    def script(peer: Peer) -> None:
        peer.greet()
        for command, reply in (("MAIL FROM:", "250 ok"), ("RCPT TO:", "250 ok"), ("DATA", "354 go on")):
            peer.hear(command)
            peer.say(reply)
        peer.hear("FROM:")
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closes with a reset

    with ScriptedServer(script) as server, pytest.raises(NoConnection, match="in the middle of the message; nothing was sent") as caught:
        mailer(server.url).send(mail(contents=("x" * 78 + "\n") * 150_000))
    assert caught.value.transient


def test_a_server_that_takes_its_time_gets_it() -> None:
    def script(peer: Peer) -> None:
        time.sleep(0.2)
        peer.greet()
        for command, reply in (("MAIL FROM:", "250 ok"), ("RCPT TO:", "250 ok"), ("DATA", "354 go on")):
            peer.hear(command)
            time.sleep(0.05)
            peer.say(reply)
        peer.message()
        time.sleep(0.1)
        peer.say("250 taken")

    with ScriptedServer(script) as server:
        sender = mailer(server.url)
        sender.send(mail())
        close(sender)


@pytest.mark.parametrize(("answer", "transient"), [("451 later", True), ("452 full", True), ("550 never", False), ("554 no", False)])
@pytest.mark.parametrize("pipelining", [(), ("PIPELINING",)])
def test_a_refusal_tells_whether_it_is_for_now(answer: str, transient: bool, pipelining: tuple[str, ...]) -> None:
    def script(peer: Peer) -> None:
        peer.greet(*pipelining)
        peer.hear("MAIL")
        if pipelining:
            peer.hear("RCPT")
            peer.hear("DATA")
            peer.say("250 ok", answer, "503 no recipients")
        else:
            peer.say("250 ok")
            peer.hear("RCPT")
            peer.say(answer)
        peer.hear("RSET")
        peer.say("250 ok")

    with ScriptedServer(script) as server:
        sender = mailer(server.url)
        with pytest.raises(Refused) as caught:
            sender.send(mail())
        close(sender)
    assert caught.value.transient is transient
    assert caught.value.details == {"smtp_code": int(answer[:3])}


def test_a_line_without_end_is_not_read_to_it() -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.hear("MAIL FROM:")
        with suppress(ConnectionError):
            peer.say("250 " + "x" * 100_000)
            peer.over()

    with ScriptedServer(script) as server, pytest.raises(NoConnection, match=r"Line too long.*; nothing was sent"):
        mailer(server.url).send(mail())


def test_a_refusal_with_421_after_the_message_is_for_now_and_ends_the_connection() -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.take("421 4.3.2 going down")
        assert peer.over()

    with ScriptedServer(script) as server:
        sender = mailer(server.url)
        with pytest.raises(Refused, match="refused the message: 421") as caught:
            sender.send(mail())
        assert caught.value.transient
        assert sender._take_kept() is None


@pytest.mark.parametrize(("answer", "transient"), [("421 4.7.0 too many connections", True), ("554 5.7.1 go away", False)])
def test_a_greeting_that_refuses_tells_whether_it_is_for_now(answer: str, transient: bool) -> None:
    with ScriptedServer(lambda peer: peer.say(answer)) as server, pytest.raises(NoConnection, match=answer) as caught:
        mailer(server.url).send(mail())
    assert caught.value.transient is transient


def test_a_login_that_is_refused_for_now_is_for_now() -> None:
    def script(peer: Peer) -> None:
        peer.greet("AUTH LOGIN")
        peer.hear("AUTH LOGIN")
        peer.say("454 4.7.0 come again")
        assert peer.over()

    with ScriptedServer(script) as server, pytest.raises(NoConnection, match="refused the user or password: 454") as caught:
        mailer(f"smtp://ann:sesame@127.0.0.1:{server.port}").send(mail())
    assert caught.value.transient


def test_a_server_that_has_cram_md5_alone_is_not_told_the_password() -> None:
    def script(peer: Peer) -> str:
        peer.greet("AUTH CRAM-MD5")
        peer.hear("AUTH CRAM-MD5")
        peer.say("334 " + base64.b64encode(b"<1@test>").decode())
        answer = base64.b64decode(peer.hear("")).decode()
        peer.say("235 welcome")
        peer.take()
        return answer

    with ScriptedServer(script) as server:
        sender = mailer(f"smtp://ann:sesame@127.0.0.1:{server.port}")
        sender.send(mail())
        close(sender)
    assert server.results == ["ann " + hmac.new(b"sesame", b"<1@test>", "md5").hexdigest()]


def test_a_name_that_nobody_has_is_not_for_now() -> None:
    with pytest.raises(NoConnection, match=r"no connection to the mail server nobody\.invalid:25: .*; nothing was sent") as caught:
        mailer("smtp://nobody.invalid").send(mail())
    assert caught.value.transient is (caught.value.__context__.errno == socket.EAI_AGAIN)  # type: ignore[union-attr]


def test_a_message_larger_than_the_server_takes_is_not_sent_in_vain() -> None:
    def script(peer: Peer) -> str:
        peer.greet("SIZE 2000")
        peer.hear("RSET")
        peer.say("250 ok")
        line = peer.hear("MAIL FROM:")
        peer.say("250 ok")
        for command, reply in (("RCPT", "250 ok"), ("DATA", "354 go on")):
            peer.hear(command)
            peer.say(reply)
        peer.message()
        peer.say("250 taken")
        return line

    small = mail()
    with ScriptedServer(script) as server:
        sender = mailer(server.url)
        with pytest.raises(Refused, match=r"refused the message: 552 it has \d+ bytes, and the server takes 2000") as caught:
            sender.send(mail(contents="x\n" * 2000))
        assert not caught.value.transient
        sender.send(small)
        close(sender)
    assert server.results == [f"MAIL FROM:<a@x.org> SIZE={len(small.message)}"]
