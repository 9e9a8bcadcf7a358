"""Letters: from addresses, a subject and contents to the bytes of a mail. How they travel is in `workers/mailer.py`.

Written out by hand, since `email.message.EmailMessage` takes a millisecond a mail and this 15 µs; the tests read it back with `email`.
A header is plain where it is short ASCII and means nothing else, else RFC 2047 words in UTF-8. Internationalised domains travel as `xn--…`.
What came from outside never ends a header line: CR, LF and NUL are refused. The body, with HTML and attachments, is in `workers/mime.py`.
"""

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime, make_msgid

from workers.mime import Attachments, bad, body_of, utf8

LONGEST_PLAIN_HEADER = 66
LONGEST_ADDRESS = 254
WORD_BYTES = 36
"""What one encoded word carries, so that a line with one stays below 76 characters."""

_ENDS_HEADER = re.compile(r"[\r\n\0]")
_NAMED = re.compile(r'(?:"(?P<quoted>(?:[^"\\]|\\.)*)"\s*|(?P<name>[^"<>]*))<(?P<address>[^<>]*)>')
_LOCAL = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.\x80-\U0010ffff-]{1,64}")
_DOMAIN = re.compile(r"(?:[A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63}\.?|\[[0-9A-Fa-fIPv.:]+\]")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~ -]+")


@dataclass(frozen=True, slots=True)
class Mailbox:
    """One address: as the envelope has it, as a header has it, and whether a server must know SMTPUTF8 to take it."""

    address: str
    header: str
    international: bool


@dataclass(frozen=True, slots=True)
class Mail:
    """What is handed to a server: the envelope, and the message in lines that end in CR LF."""

    sender: str
    recipient: str
    message: bytes
    international: bool


class Letter:
    """One letter for any number of recipients, each of whom gets a mail of their own. Raises `BadArguments`, which names the parameter."""

    __slots__ = ("_body", "_head", "_international", "_sender")

    def __init__(
        self, sender: str, subject: str, contents: str, *, html: str = "", attachments: Attachments = (), reply_to: str = ""
    ) -> None:
        self._sender = mailbox(sender, "from")
        subject_line = f"Subject: {_header_text(subject, 'subject')}\r\n" if subject else ""
        reply = mailbox(reply_to, "reply_to") if reply_to else None
        reply_line = f"Reply-To: {reply.header}\r\n" if reply else ""
        self._international = self._sender.international or (reply is not None and reply.international)
        self._head = f"From: {self._sender.header}\r\n{reply_line}{subject_line}"
        self._body = body_of(contents, html, attachments)

    def to(self, recipient: Mailbox) -> Mail:
        """The mail for one of them, with a date and an id of its own."""
        sender = self._sender
        message_id = make_msgid(domain=sender.address.rpartition("@")[2].strip("[]"))
        date = format_datetime(datetime.now(UTC))
        head = f"{self._head}To: {recipient.header}\r\nDate: {date}\r\nMessage-ID: {message_id}\r\n"
        international = self._international or recipient.international
        return Mail(sender.address, recipient.address, head.encode() + self._body, international)


def mailbox(text: str, parameter: str) -> Mailbox:
    """`a@x.org` or `Name <a@x.org>`. Raises `BadArguments` that names `parameter`, and says what is wrong without repeating the text."""
    _refuse_line_ends(text, parameter)
    named = _NAMED.fullmatch(text.strip())
    address = (named["address"] if named else text).strip()
    if len(address) > LONGEST_ADDRESS:
        raise bad(parameter, f"is longer than {LONGEST_ADDRESS} characters")
    local, at, domain = address.rpartition("@")
    if not at:
        raise bad(parameter, "is empty" if not address else "has no @")
    if not _LOCAL.fullmatch(local) or not local.isprintable():
        raise bad(parameter, "must be one address, as a@x.org or Name <a@x.org>; what is before its @ cannot be read")
    address = f"{local}@{_domain(domain, parameter)}"
    name = _display_name(named) if named else ""
    header = f"{_phrase(name, parameter)} <{address}>" if name else address
    return Mailbox(address, header, not local.isascii())


def _domain(domain: str, parameter: str) -> str:
    if not domain.isascii():
        try:
            domain = domain.encode("idna").decode("ascii")
        except UnicodeError:
            raise bad(parameter, "has a domain that cannot be written in DNS") from None
    if not _DOMAIN.fullmatch(domain):
        raise bad(parameter, "has no domain after its @ that can be read")
    return domain


def _display_name(named: re.Match[str]) -> str:
    quoted = named["quoted"]
    return named["name"].strip() if quoted is None else re.sub(r"\\(.)", r"\1", quoted)


def _phrase(name: str, parameter: str) -> str:
    if not _is_plain_header(name):
        return _encoded(name, parameter) + "\r\n"
    return name if _PLAIN_NAME.fullmatch(name) else '"' + re.sub(r'(["\\])', r"\\\1", name) + '"'


def _header_text(text: str, parameter: str) -> str:
    _refuse_line_ends(text, parameter)
    return text if _is_plain_header(text) else _encoded(text, parameter)


def _is_plain_header(text: str) -> bool:
    return len(text) <= LONGEST_PLAIN_HEADER and text.isascii() and text.isprintable() and "=?" not in text and text == text.strip()


def _encoded(text: str, parameter: str) -> str:
    words = (base64.b64encode(chunk).decode("ascii") for chunk in _chunks(text, parameter))
    return "\r\n ".join(f"=?utf-8?b?{word}?=" for word in words)


def _chunks(text: str, parameter: str) -> Iterator[bytes]:
    """The text in UTF-8, cut between characters."""
    chunk = b""
    for character in text:
        encoded = utf8(character, parameter)
        if len(chunk) + len(encoded) > WORD_BYTES:
            yield chunk
            chunk = b""
        chunk += encoded
    yield chunk


def _refuse_line_ends(text: str, parameter: str) -> None:
    if _ENDS_HEADER.search(text):
        raise bad(parameter, "has a line break or a NUL in it, which would end the header")
