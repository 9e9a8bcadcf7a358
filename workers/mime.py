"""The body of a mail: text, HTML beside it, attachments after it; from strings to the bytes that follow the last header of the letter.

Written out by hand for the same reason as `workers/letter.py`, which has the headers, the addresses, and what a mail is. Text is in UTF-8:
as it is where it is ASCII in short lines, else in base64, so that every server takes it. Attachments come as base64 in the arguments of a
task: nothing here opens a file, and a name that came from outside never ends a header line.
"""

import base64
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence

from app.errors import BadArguments

LONGEST_LINE = 900
"""Characters a line of text may have to go as it is; 998 is what RFC 5322 allows."""
MOST_ATTACHMENTS = 20
MOST_ATTACHED = 10 * 1024 * 1024
"""Bytes in all attachments of a letter; most servers take 25 MB, a third more in base64."""
LONGEST_NAME = 200

Attachments = Sequence[Mapping[str, str]]
"""Each has a `name`, its `content` in base64, and where it likes a `type` as `application/pdf`."""

_NEWLINE = re.compile(r"\r\n|\r|\n")
_PLAIN_TEXT = re.compile(r"[\t\r\n\x20-\x7e]*")
_TYPE = re.compile(r"(?!multipart/|message/)[a-z0-9][a-z0-9!#$&^_.+-]{0,63}/[a-z0-9][a-z0-9!#$&^_.+-]{0,63}", re.IGNORECASE)
_NOT_IN_NAMES = re.compile(r"[\x00-\x1f\x7f-\x9f/\\\u2028-\u202e\u2066-\u2069]")
"""Controls, what makes a path, and what turns the direction of writing, so that `exe.pdf` could be read as `fdp.exe`."""
_PLAIN_NAME = re.compile(r"[A-Za-z0-9!#$&+^_`{}~. ()-]{1,60}")
_KEYS = frozenset(("name", "content", "type"))
_BYTES_A_LINE = 20


def body_of(contents: str, html: str = "", attachments: Attachments = ()) -> bytes:
    """The headers that tell of the body, an empty line, the body. Raises `BadArguments`, which names the parameter.

    Only the HTML is sent where `contents` is empty and `html` is not: an empty text would be what some readers show.
    """
    parts = [_text(contents, "contents", "plain")] if contents or not html else []
    if html:
        parts.append(_text(html, "html", "html"))
    text = parts[0] if len(parts) == 1 else _multipart("alternative", parts)
    attached = list(_attached(attachments))
    return b"MIME-Version: 1.0\r\n" + (_multipart("mixed", [text, *attached]) if attached else text)


def utf8(text: str, parameter: str) -> bytes:
    """The text in UTF-8. Raises `BadArguments` where it has a lone surrogate."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise bad(parameter, "has a lone surrogate, which is no character") from None


def bad(parameter: str, what: str) -> BadArguments:
    """The error of a parameter that cannot be used."""
    return BadArguments(f'"{parameter}" {what}', parameter=parameter)


def _text(text: str, parameter: str, kind: str) -> bytes:
    text = _NEWLINE.sub("\r\n", text)
    if not text.endswith("\r\n"):
        text += "\r\n"
    if _PLAIN_TEXT.fullmatch(text) and max(map(len, text.split("\r\n"))) <= LONGEST_LINE:
        encoding, body = "7bit", text.encode("ascii")
    else:
        encoding, body = "base64", _base64_lines(utf8(text, parameter))
    head = f'Content-Type: text/{kind}; charset="utf-8"\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n'
    return head.encode("ascii") + body


def _multipart(kind: str, parts: list[bytes]) -> bytes:
    """The parts between lines that nobody can foresee, so that no text can end its part: RFC 2046, 5.1."""
    line = secrets.token_hex(16).encode("ascii")
    inside = b"".join(b"--" + line + b"\r\n" + part + b"\r\n" for part in parts)
    return b'Content-Type: multipart/%s; boundary="%s"\r\n\r\n' % (kind.encode("ascii"), line) + inside + b"--" + line + b"--\r\n"


def _attached(attachments: Attachments) -> Iterator[bytes]:
    if len(attachments) > MOST_ATTACHMENTS:
        raise bad("attachments", f"are more than {MOST_ATTACHMENTS}")
    left = MOST_ATTACHED
    for number, attachment in enumerate(attachments):
        where = f"attachments[{number}]"
        _check_keys(attachment, where)
        content = _content(attachment["content"], f"{where}.content")
        left -= len(content)
        if left < 0:
            raise bad("attachments", f"have more than {MOST_ATTACHED} bytes together")
        yield _attachment(attachment, content, where)


def _check_keys(attachment: Mapping[str, str], where: str) -> None:
    for key in ("name", "content"):
        if key not in attachment:
            raise bad(where, f'has no "{key}"')
    if attachment.keys() - _KEYS:
        raise bad(where, 'has more than "name", "content" and "type"')


def _content(text: str, parameter: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise bad(parameter, "is not base64") from None


def _attachment(attachment: Mapping[str, str], content: bytes, where: str) -> bytes:
    kind = attachment.get("type") or "application/octet-stream"
    if not _TYPE.fullmatch(kind):
        raise bad(f"{where}.type", "must be a media type, as application/pdf, and neither multipart nor message")
    name = _file_name(attachment["name"], f"{where}.name")
    charset = '; charset="utf-8"' if kind.lower().startswith("text/") and _is_utf8(content) else ""
    head = f"Content-Type: {kind}{charset}\r\nContent-Disposition: attachment;{name}\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    return head.encode("ascii") + _base64_lines(content)


def _file_name(name: str, parameter: str) -> str:
    """The parameter of a header, in pieces of RFC 2231 where it is not plain."""
    if not name.strip() or len(name) > LONGEST_NAME:
        raise bad(parameter, f"must have 1 to {LONGEST_NAME} characters")
    if _NOT_IN_NAMES.search(name):
        raise bad(parameter, "has a control character, a / or a \\ in it; give the name alone, without a path")
    encoded = utf8(name, parameter)
    if _PLAIN_NAME.fullmatch(name):
        return f'\r\n filename="{name}"'
    pieces = [encoded[at : at + _BYTES_A_LINE] for at in range(0, len(encoded), _BYTES_A_LINE)]
    escaped = ["".join(f"%{byte:02X}" for byte in piece) for piece in pieces]
    if len(escaped) == 1:
        return f"\r\n filename*=utf-8''{escaped[0]}"
    first, *others = escaped
    return f"\r\n filename*0*=utf-8''{first}" + "".join(f";\r\n filename*{number}*={piece}" for number, piece in enumerate(others, 1))


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _base64_lines(content: bytes) -> bytes:
    encoded = base64.b64encode(content)
    return b"".join(encoded[at : at + 76] + b"\r\n" for at in range(0, len(encoded), 76))
