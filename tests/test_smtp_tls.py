"""Mail over real TLS, with logins: who the server is is checked, and neither a mail nor a password goes in clear where the URL says TLS."""

import gc
import ssl
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest

from tests.certificates import Authority, make_authority
from tests.mailservers import PASSWORD, USER, Peer, ScriptedServer, aiosmtpd_server
from workers import smtp
from workers.letter import Letter, Mail, mailbox
from workers.mailer import KEEP, SmtpMailer
from workers.smtp import NoConnection, Refused
from workers.smtp_server import SmtpServer

LOGIN = f"{quote(USER, safe='')}:{quote(PASSWORD, safe='')}@"


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """Sockets of mailers that are forgotten are closed within their test."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("ca"))


def mail(contents: str = "hello") -> Mail:
    return Letter("a@x.org", "hi", contents).to(mailbox("b@y.org", "to"))


def send(url: str, *mails: Mail) -> None:
    """On connections of its own, which are closed then."""
    mailer = SmtpMailer(SmtpServer(url))
    try:
        for one in mails or (mail(),):
            mailer.send(one)
    finally:
        close(mailer)


def close(mailer: SmtpMailer) -> None:
    while (connection := mailer._take_kept()) is not None:
        connection.close()


def refusal(url: str) -> NoConnection:
    with pytest.raises(NoConnection, match=r"; nothing was sent$") as caught:
        send(url)
    return caught.value


class Kind:
    """One of the two ways to TLS: aiosmtpd that has it, and the URL of it."""

    def __init__(self, scheme: str, query: str) -> None:
        self._scheme, self._query = scheme, query

    def server(self, tls: ssl.SSLContext, **options: Any) -> Any:
        if self._scheme == "smtps":  # aiosmtpd does not see that there is TLS
            return aiosmtpd_server(tls=tls, auth_require_tls=False, **options)
        return aiosmtpd_server(tls_context=tls, require_starttls=True, **options)

    def url(self, port: int, query: str, login: str = "", host: str = "127.0.0.1") -> str:
        return f"{self._scheme}://{login}{host}:{port}/?{self._query}{query}"


@pytest.fixture(params=[("smtps", ""), ("smtp", "starttls=1&")], ids=["smtps", "starttls"])
def kind(request: pytest.FixtureRequest) -> Kind:
    return Kind(*request.param)


def test_mails_go_through_tls_on_one_connection(authority: Authority, kind: Kind) -> None:
    with kind.server(authority.here) as server:
        send(kind.url(server.port, f"cafile={authority.cafile}"), mail("one"), mail("two" * 100_000))
        send(kind.url(server.port, f"cafile={authority.cafile}", host="localhost"))
    assert [envelope.rcpt_tos for envelope in server.envelopes] == [["b@y.org"]] * 3
    assert len(server.connections) == 2


def test_a_server_of_an_authority_that_the_system_does_not_know_gets_nothing(authority: Authority, kind: Kind) -> None:
    with kind.server(authority.here) as server:
        error = refusal(kind.url(server.port, "", LOGIN))
        assert "its certificate is not trusted (" in error.message
        assert "cafile=" in error.message
        assert not error.transient
    assert (server.envelopes, server.logins) == ([], [])


def test_a_server_of_another_name_gets_nothing(authority: Authority, kind: Kind) -> None:
    with kind.server(authority.elsewhere) as server:
        error = refusal(kind.url(server.port, f"cafile={authority.cafile}", LOGIN))
        assert "not valid for '127.0.0.1'" in error.message
        assert not error.transient
    assert (server.envelopes, server.logins) == ([], [])


def test_any_server_is_believed_where_that_is_said(authority: Authority, kind: Kind) -> None:
    with kind.server(authority.elsewhere) as server:
        send(kind.url(server.port, "verify=0"))
    assert len(server.envelopes) == 1


@pytest.mark.parametrize(("without", "mechanism"), [("", "PLAIN"), ("PLAIN", "LOGIN")])
def test_the_user_logs_in_with_any_password(authority: Authority, kind: Kind, without: str, mechanism: str) -> None:
    with kind.server(authority.here, auth_exclude_mechanism=[without]) as server:
        send(kind.url(server.port, f"cafile={authority.cafile}", LOGIN))
    assert server.logins == [(mechanism, USER)]
    assert len(server.envelopes) == 1


@pytest.mark.parametrize("without", ["", "PLAIN"])
def test_a_wrong_password_is_told_and_not_tried_again(authority: Authority, kind: Kind, without: str) -> None:
    with kind.server(authority.here, auth_exclude_mechanism=[without]) as server:
        error = refusal(kind.url(server.port, f"cafile={authority.cafile}", "ann:sesame@"))
    assert "refused the user or password: 535" in error.message
    assert "sesame" not in error.message
    assert (error.details, error.transient, len(server.logins)) == ({"smtp_code": 535}, False, 1)


def test_a_server_that_wants_a_login_that_the_url_has_not_says_so(authority: Authority) -> None:
    starttls: dict[str, Any] = {"tls_context": authority.here, "require_starttls": True, "auth_required": True}
    with aiosmtpd_server(**starttls) as server, pytest.raises(Refused, match="refused the sender: 530"):
        send(f"smtp://127.0.0.1:{server.port}/?starttls=1&cafile={authority.cafile}")


def test_a_server_without_logins_is_named(authority: Authority, kind: Kind) -> None:
    with kind.server(authority.here, auth_exclude_mechanism=["PLAIN", "LOGIN"]) as server:
        error = refusal(kind.url(server.port, f"cafile={authority.cafile}", LOGIN))
    assert "offers no login that we know" in error.message
    assert not error.transient


def test_a_kept_connection_that_is_gone_is_replaced(authority: Authority, kind: Kind) -> None:
    with kind.server(authority.here) as server:
        mailer = SmtpMailer(SmtpServer(kind.url(server.port, f"cafile={authority.cafile}")))
        mailer.send(mail("before"))
    with kind.server(authority.here, port=server.port) as again:
        mailer.send(mail("after"))
        close(mailer)
    assert (len(server.envelopes), len(again.envelopes)) == (1, 1)


def test_a_connection_not_used_for_long_is_not_used_again(authority: Authority, kind: Kind) -> None:
    with kind.server(authority.here) as server:
        mailer = SmtpMailer(SmtpServer(kind.url(server.port, f"cafile={authority.cafile}")))
        mailer.send(mail())
        mailer._kept[0].used_at -= KEEP + 1
        mailer.send(mail())
        close(mailer)
    assert (len(server.envelopes), len(server.connections)) == (2, 2)


# STARTTLS, and those who would do without it.


def test_without_starttls_nothing_is_said_in_clear() -> None:
    def has_none(peer: Peer) -> None:
        peer.greet("AUTH PLAIN LOGIN")
        assert peer.over()

    with ScriptedServer(has_none) as server:
        error = refusal(f"smtp://{LOGIN}127.0.0.1:{server.port}/?starttls=1")
    assert "offers no STARTTLS, which the SMTP URL demands" in error.message
    assert not error.transient


@pytest.mark.parametrize(("answer", "transient"), [("454 4.7.0 not now", True), ("502 no", False)])
def test_a_starttls_that_is_refused_ends_it(answer: str, transient: bool) -> None:
    def refuses(peer: Peer) -> None:
        peer.greet("STARTTLS", "AUTH PLAIN")
        peer.hear("STARTTLS")
        peer.say(answer)
        assert peer.over()

    with ScriptedServer(refuses) as server:
        error = refusal(f"smtp://{LOGIN}127.0.0.1:{server.port}/?starttls=1")
    assert f"refused STARTTLS: {answer}" in error.message
    assert error.transient is transient


def test_what_somebody_put_behind_the_answer_in_clear_is_not_believed(authority: Authority) -> None:
    """A man in the middle could say there what the server has: RFC 3207, 6."""

    def injected(peer: Peer) -> list[str]:
        peer.greet("STARTTLS", "SIZE 1")
        peer.hear("STARTTLS")
        peer.say("220 go on", "250-evil", "250 AUTH PLAIN", "235 welcome")
        peer.start_tls(authority.here)
        peer.hear("EHLO")
        peer.say("250-test", "250 AUTH LOGIN")
        heard = []
        for answer in ("334 user", "334 password", "235 welcome"):
            heard.append(peer.hear(""))
            peer.say(answer)
        peer.take()
        return heard

    with ScriptedServer(injected) as server:
        send(f"smtp://ann:sesame@127.0.0.1:{server.port}/?starttls=1&cafile={authority.cafile}")
    assert server.results == [["AUTH LOGIN", "YW5u", "c2VzYW1l"]]


def test_a_server_that_speaks_no_tls_on_that_port_is_named() -> None:
    with aiosmtpd_server() as server:
        error = refusal(f"smtps://127.0.0.1:{server.port}")
    assert "it speaks no TLS there; smtps:// is for port 465" in error.message
    assert not error.transient


def hangs_up(peer: Peer) -> None:
    """Before anything."""


def hangs_up_after_the_answer(peer: Peer) -> None:
    peer.greet("STARTTLS")
    peer.hear("STARTTLS")
    peer.say("220 go on")


def silent(peer: Peer) -> None:
    peer.over()


def silent_after_the_answer(peer: Peer) -> None:
    hangs_up_after_the_answer(peer)
    peer.over()


@pytest.mark.parametrize(
    ("script", "url"),
    [
        (hangs_up, "smtps://127.0.0.1:{}"),
        (silent, "smtps://127.0.0.1:{}"),
        (hangs_up_after_the_answer, "smtp://127.0.0.1:{}/?starttls=1"),
        (silent_after_the_answer, "smtp://127.0.0.1:{}/?starttls=1"),
    ],
)
def test_a_server_that_hangs_up_or_says_nothing_in_the_handshake_may_be_better_later(
    script: Callable[[Peer], None], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smtp, "CONNECT_TIMEOUT", 0.2)
    monkeypatch.setattr(smtp, "REPLY_TIMEOUT", 0.2)
    with ScriptedServer(script) as server:
        error = refusal(url.format(server.port))
    assert error.transient
