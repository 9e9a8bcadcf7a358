"""Letters read back by the standard library: whatever the text, it arrives; nothing in it becomes a header of its own."""

import email
import email.policy
import re
import timeit
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.utils import parseaddr
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.errors import BadArguments
from workers.letter import Letter, Mail, mailbox

ARABIC = "مرحبا بالعالم"
EMOJI = "🎉 party 👩‍👩‍👧"
LINE_ENDS = ["\r", "\n", "\r\n", "\0", "\r\nBcc: all@x.org", "\nX-Evil: 1\n\nbody"]

texts = st.text(st.characters(codec="utf-8"))
header_texts = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"))


def write(sender: str = "a@x.org", recipient: str = "b@y.org", subject: str = "hi", contents: str = "hello") -> Mail:
    return Letter(sender, subject, contents).to(mailbox(recipient, "to"))


def read(mail: Mail) -> EmailMessage:
    message = email.message_from_bytes(mail.message, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    assert message.defects == []
    return message


def lines_of(mail: Mail) -> list[bytes]:
    """Its lines, each of which must end in CR LF and be no longer than SMTP takes."""
    assert mail.message.endswith(b"\r\n")
    assert not re.search(rb"(?<!\r)\n|\r(?!\n)|\0", mail.message)
    lines = mail.message.split(b"\r\n")
    assert max(map(len, lines)) <= 998
    return lines


def refusal(**parts: Any) -> tuple[str, str]:
    with pytest.raises(BadArguments) as caught:
        write(**parts)
    return caught.value.details["parameter"], caught.value.message


def test_a_simple_mail_is_as_simple_as_it_can_be() -> None:
    mail = write()
    assert (mail.sender, mail.recipient, mail.international) == ("a@x.org", "b@y.org", False)
    lines = lines_of(mail)
    assert lines[:3] == [b"From: a@x.org", b"Subject: hi", b"To: b@y.org"]
    assert lines[-5:] == [b'Content-Type: text/plain; charset="utf-8"', b"Content-Transfer-Encoding: 7bit", b"", b"hello", b""]


def test_each_mail_of_a_letter_has_a_date_and_an_id_of_its_own() -> None:
    letter = Letter("a@x.org", "hi", "hello")
    first, second = (read(letter.to(mailbox("b@y.org", "to"))) for _ in range(2))
    assert first["Message-ID"] != second["Message-ID"]
    assert first["Message-ID"].endswith("@x.org>")
    assert first["Date"].datetime.tzinfo is not None


def test_no_subject_is_no_header() -> None:
    assert read(write(subject=""))["Subject"] is None


@pytest.mark.parametrize("text", [ARABIC, EMOJI, ARABIC * 40, "é", "=?utf-8?b?AAAA?=", " spaces ", "x" * 2000, "a b " * 300, "tab\there"])
def test_any_subject_arrives(text: str) -> None:
    mail = write(subject=text)
    lines_of(mail)
    assert mail.message.isascii()
    assert read(mail)["Subject"] == text


@pytest.mark.parametrize(
    "text", [ARABIC, EMOJI, "a\nb", "a\r\nb", "x" * 5000, "é" * 3000, ".\n..\n.x", "nul\0nul", "From me", "\u2028\x85\x0b", "--"]
)
def test_any_contents_arrive(text: str) -> None:
    mail = write(contents=text)
    lines_of(mail)
    assert mail.message.isascii()
    assert read(mail).get_content().replace("\r\n", "\n").removesuffix("\n") == text.replace("\r\n", "\n")


@given(header_texts, texts)
@example("\x85\u2028\x0b\x1c", "\x0b\x0c\x1c\x85")
def test_every_text_arrives_as_it_was_sent(subject: str, contents: str) -> None:
    mail = write(subject=subject, contents=contents)
    lines_of(mail)
    message = read(mail)
    assert list(message.keys()).count("To") == 1
    body = message.get_payload(decode=True)
    assert isinstance(body, bytes)
    assert body.decode().removesuffix("\r\n") == re.sub(r"\r\n|\r|\n", "\r\n", contents).removesuffix("\r\n")
    assert email_words(mail) == subject


def email_words(mail: Mail) -> str:
    """The subject, by the rules of RFC 2047 alone: the parser of `email` changes control characters."""
    found = re.search(rb"^Subject: (.*(?:\r\n .*)*)\r\n", mail.message, re.MULTILINE)
    if found is None:
        return ""
    words = re.fullmatch(rb"(?:=\?utf-8\?b\?[A-Za-z0-9+/=]+\?=(?:\r\n )?)+", found[1])
    return found[1].decode() if words is None else "".join(_decoded(word) for word in re.findall(rb"\?b\?([^?]+)\?=", found[1]))


def _decoded(word: bytes) -> str:
    message = email.message_from_bytes(b"Content-Transfer-Encoding: base64\n\n" + word)
    payload = message.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload.decode()  # each word holds whole characters


@pytest.mark.parametrize(
    "name", [ARABIC, EMOJI, "Ann", "Ann B. Cole", "Cole, Ann", 'Ann "the boss" Cole', "a\\b", "é" * 100, "x" * 300, "=?utf-8?q?x?="]
)
def test_a_display_name_arrives_beside_its_address(name: str) -> None:
    quoted = '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    mail = write(sender=f"{quoted} <a@x.org>", recipient=f"  {quoted}  <b@y.org>  ")
    lines_of(mail)
    assert mail.message.isascii()
    assert (mail.sender, mail.recipient) == ("a@x.org", "b@y.org")
    for header, address in (("From", "a@x.org"), ("To", "b@y.org")):
        value = email.message_from_bytes(mail.message, policy=email.policy.compat32)[header]
        shown, parsed = parseaddr(re.sub(r"\r\n ", " ", value))
        assert (str(make_header(decode_header(shown))), parsed) == (name, address)


def test_a_display_name_needs_no_quotes() -> None:
    assert read(write(recipient=f"{ARABIC} <b@y.org>"))["To"].addresses[0].display_name == ARABIC
    assert write(recipient="Ann <b@y.org>").message.count(b"To: Ann <b@y.org>\r\n") == 1
    assert write(recipient="<b@y.org>").message.count(b"To: b@y.org\r\n") == 1


@pytest.mark.parametrize("evil", LINE_ENDS)
def test_nothing_that_ends_a_header_line_gets_into_one(evil: str) -> None:
    assert refusal(sender=f"a{evil}@x.org")[0] == "from"
    assert refusal(sender=f"a@x.org{evil}")[0] == "from"
    assert refusal(recipient=f"Ann{evil} <b@y.org>")[0] == "to"
    assert refusal(recipient=f"b@y.org{evil}")[0] == "to"
    assert refusal(subject=f"hi{evil}") == ("subject", '"subject" has a line break or a NUL in it, which would end the header')


@given(texts)
@example("Ann <b@y.org>\n")
@example('"\r" <b@y.org>')
@example("b@y.org, c@z.org")
def test_an_address_is_one_address_or_refused(text: str) -> None:
    try:
        mail = write(recipient=text)
    except BadArguments as refused:
        assert refused.details["parameter"] == "to"  # noqa: PT017
    else:
        assert len(lines_of(mail)) == len(lines_of(write())) + mail.message.count(b"\r\n ")
        assert not re.search(r"[\s<>\0]", mail.recipient)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("", "is empty"),
        ("   ", "is empty"),
        ("Ann <>", "is empty"),
        ("ann", "has no @"),
        ("Ann <ann>", "has no @"),
        ("@x.org", "before its @"),
        ("a b@x.org", "before its @"),
        ("a@b@x.org", "before its @"),
        ("a@x.org, b@x.org", "before its @"),
        ("a@x.org;b@x.org", "before its @"),
        ("<a@x.org> <b@x.org>", "before its @"),
        ("a\u00a0b@x.org", "before its @"),
        ("a@", "no domain"),
        ("a@x..org", "no domain"),
        ("a@x org", "no domain"),
        ("a@x.org>", "no domain"),
        ("a@مثال..org", "domain that cannot be written"),
        ("a" * 65 + "@x.org", "before its @"),
        ("a@" + "x." * 200 + "org", "longer than 254"),
    ],
)
def test_an_address_that_cannot_be_used_says_what_is_wrong(address: str, message: str) -> None:
    parameter, text = refusal(recipient=address)
    assert parameter == "to"
    assert message in text


def test_the_parameter_is_named_as_told() -> None:
    with pytest.raises(BadArguments) as caught:
        mailbox("nobody", "to[3]")
    assert caught.value.as_wire() == {"code": "bad_arguments", "message": '"to[3]" has no @', "parameter": "to[3]"}


@pytest.mark.parametrize(
    "address", ["a@x.org", "a+b_c'd/e=f@sub.x-y.org", "a@localhost", "a@[127.0.0.1]", "a@[IPv6:::1]", "a..b@docomo.ne.jp", "A@X.org"]
)
def test_ordinary_and_odd_addresses_are_taken_as_they_are(address: str) -> None:
    assert mailbox(address, "to").address == address


def test_a_domain_of_any_script_travels_in_ascii_and_a_local_part_needs_a_server_that_knows() -> None:
    assert mailbox("info@مثال.إختبار", "to").address == "info@xn--mgbh0fb.xn--kgbechtv"
    assert not mailbox("info@مثال.إختبار", "to").international
    mail = write(recipient=f"{ARABIC} <محمد@مثال.إختبار>")
    assert mail.recipient == "محمد@xn--mgbh0fb.xn--kgbechtv"
    assert mail.international
    assert "محمد@xn--mgbh0fb.xn--kgbechtv".encode() in mail.message


@pytest.mark.parametrize("parameter", ["subject", "contents"])
def test_a_lone_surrogate_is_refused(parameter: str) -> None:
    assert refusal(**{parameter: "a\ud800"})[0] == parameter


def test_a_long_address_is_read_in_linear_time() -> None:
    for evil in (" " * 100_000, '"' + "\\" * 100_000, "<" * 100_000, "a" * 100_000 + "<", '"' + "a " * 50_000):
        assert timeit.timeit(lambda evil=evil: refusal(recipient=evil), number=1) < 1.0  # type: ignore[misc]
