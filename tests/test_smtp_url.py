"""What an SMTP URL says, and what is wrong with one that cannot be used; no message repeats it, for the password that may be in it."""

import ssl
from pathlib import Path

import pytest

from app.errors import SettingsError
from workers.smtp_url import SmtpUrl, read_smtp_url


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("smtp://x.org", SmtpUrl("x.org", 25, "none")),
        ("smtp://x.org:2525/", SmtpUrl("x.org", 2525, "none")),
        ("smtp://x.org?starttls=0", SmtpUrl("x.org", 25, "none")),
        ("smtp://x.org?starttls=1", SmtpUrl("x.org", 587, "starttls")),
        ("smtp://a:b@x.org:2587/?starttls=1", SmtpUrl("x.org", 2587, "starttls", "a", "b")),
        ("smtps://a:b@x.org", SmtpUrl("x.org", 465, "tls", "a", "b")),
        ("smtps://x.org/?verify=0", SmtpUrl("x.org", 465, "tls", verify=False)),
        ("smtps://x.org/?verify=1", SmtpUrl("x.org", 465, "tls")),
        ("smtps://ann%40x.org:p%3A%2F%20%C3%B6@x.org", SmtpUrl("x.org", 465, "tls", "ann@x.org", "p:/ ö")),
        ("smtp://a:b@127.0.0.1", SmtpUrl("127.0.0.1", 25, "none", "a", "b")),
        ("smtp://a:b@127.9.9.9", SmtpUrl("127.9.9.9", 25, "none", "a", "b")),
        ("smtp://a:b@[::1]:26", SmtpUrl("::1", 26, "none", "a", "b")),
        ("smtp://a:b@LocalHost", SmtpUrl("localhost", 25, "none", "a", "b")),
        ("smtp://a:b@x.org/?insecure=1", SmtpUrl("x.org", 25, "none", "a", "b")),
    ],
)
def test_what_it_says(text: str, url: SmtpUrl) -> None:
    assert read_smtp_url(text) == url


def test_a_ca_of_ones_own_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "my ca.pem"
    path.write_text("no certificate")
    assert read_smtp_url(f"smtps://x.org/?cafile={str(path).replace(' ', '%20')}").cafile == str(path)
    with pytest.raises(SettingsError, match=r"cafile=.*my ca\.pem cannot be read"):
        read_smtp_url(f"smtps://x.org/?cafile={path}").tls()


@pytest.mark.parametrize("text", ["smtps://x.org", "smtp://x.org?starttls=1"])
def test_certificates_are_checked_unless_told_in_so_many_words(text: str) -> None:
    context = read_smtp_url(text).tls()
    assert context is not None
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    blind = read_smtp_url(text + ("&" if "?" in text else "?") + "verify=0").tls()
    assert blind is not None
    assert (blind.verify_mode, blind.check_hostname) == (ssl.CERT_NONE, False)


def test_in_clear_there_is_no_tls() -> None:
    assert read_smtp_url("smtp://x.org").tls() is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("smtp://", "must be like"),
        ("http://sesame@x.org", "must be like"),
        ("x.org:25", "must be like"),
        ("smtps://ann:sesa/me@x.org", "no readable host and port|must be like"),
        ("smtps://ann:sesa#me@x.org", "no readable host and port|must be like"),
        ("smtp://x.org/path", "must be like"),
        ("smtp://sesame@x.org:port", "no readable host and port"),
        ("smtp://x.org:99999", "no readable host and port"),
        ("smtp://[::1", "no readable host and port"),
        ("smtp://x.org/?tls=1", "no option 'tls'; there are starttls, cafile, verify, insecure"),
        ("smtps://x.org/?verify=0&verify=1", "names an option twice"),
        ("smtps://x.org/?starttls=1", "starttls has no meaning there"),
        ("smtp://x.org/?starttls=yes", "starttls must be 0 or 1"),
        ("smtps://x.org/?verify=false", "verify must be 0 or 1"),
        ("smtps://x.org/?verify=", "verify must be 0 or 1"),
        ("smtp://x.org/?verify=0", "verify has no meaning without TLS"),
        ("smtp://x.org/?cafile=/etc/hostname", "cafile has no meaning without TLS"),
        ("smtps://x.org/?verify=0&cafile=/etc/hostname", "cafile has no meaning with verify=0"),
        ("smtps://x.org/?cafile=/nowhere/ca.pem", "cafile=/nowhere/ca.pem is no file"),
        ("smtp://ann:sesame@x.org", r"would send the password in clear to x\.org:25; use smtps:// or starttls=1"),
        ("smtp://ann:sesame@192.0.2.1/?insecure=0", r"in clear to 192\.0\.2\.1:25"),
        ("smtp://ann:sesame@[2001:db8::1]", r"in clear to \[2001:db8::1\]:25"),
        ("smtp://ann:sesame@localhost.x.org", "in clear to"),
        ("smtp://ann:sesame@127.0.0.1.x.org", "in clear to"),
    ],
)
def test_one_that_cannot_be_used_is_told_so_without_its_password(text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        read_smtp_url(text)
    assert "sesa" not in caught.value.message


def test_the_password_is_not_shown_by_accident() -> None:
    assert "sesame" not in repr(read_smtp_url("smtps://ann:sesame@x.org"))
