"""Bodies read back by Python: text, HTML and attachments arrive as they were; nothing in them opens a file or adds a header."""

import base64
import email
import email.policy
import re
import time
from email.message import EmailMessage, MIMEPart
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.errors import BadArguments
from workers.letter import Letter, Mail, mailbox
from workers.mime import LONGEST_NAME, MOST_ATTACHED, MOST_ATTACHMENTS
from workers.registry import REGISTRY

HTML = "<p>مرحبا <b>🎉</b></p>\n.\n..\n"


def write(contents: str = "hello", **parts: Any) -> Mail:
    return Letter("a@x.org", "hi", contents, **parts).to(mailbox("b@y.org", "to"))


def read(mail: Mail) -> EmailMessage:
    assert mail.message.isascii()
    assert mail.message.endswith(b"\r\n")
    assert not re.search(rb"(?<!\r)\n|\r(?!\n)|\0", mail.message)
    assert max(map(len, mail.message.split(b"\r\n"))) <= 998
    message = email.message_from_bytes(mail.message, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    assert [part.defects for part in message.walk()] == [[] for _ in message.walk()]
    return message


def attachment(name: str = "a.bin", content: bytes = b"\0\xff", **more: str) -> dict[str, str]:
    return {"name": name, "content": base64.b64encode(content).decode(), **more}


def attached(mail: Mail) -> list[tuple[str | None, str, bytes]]:
    """Name, type and content of each."""
    parts = list(read(mail).iter_attachments())
    assert all(part.get_content_disposition() == "attachment" for part in parts)
    return [(part.get_filename(), part.get_content_type(), part.get_payload(decode=True)) for part in parts]  # type: ignore[misc]


def text_of(part: MIMEPart | None) -> str:
    assert part is not None
    content = part.get_content()
    assert isinstance(content, str)
    return content.replace("\r\n", "\n")


def refusal(*attachments: dict[str, str]) -> tuple[str, str]:
    with pytest.raises(BadArguments) as caught:
        write(attachments=attachments)
    return caught.value.details["parameter"], caught.value.message


def test_html_goes_beside_the_text_and_comes_after_it() -> None:
    message = read(write("as text", html=HTML))
    assert message.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]
    assert text_of(message.get_body(["plain"])) == "as text\n"
    assert text_of(message.get_body(["html"])) == HTML


def test_html_goes_alone_where_there_is_no_text() -> None:
    message = read(write("", html="<p>hi"))
    assert (message.get_content_type(), text_of(message)) == ("text/html", "<p>hi\n")
    assert read(write("")).get_content_type() == "text/plain"


def test_attachments_come_after_the_text_and_the_html() -> None:
    mail = write("as text", html=HTML, attachments=[attachment("bill.pdf", b"%PDF", type="application/pdf"), attachment("b.bin")])
    message = read(mail)
    assert [part.get_content_type() for part in message.walk()] == [
        "multipart/mixed",
        "multipart/alternative",
        "text/plain",
        "text/html",
        "application/pdf",
        "application/octet-stream",
    ]
    assert text_of(message.get_body(["html"])) == HTML
    assert attached(mail) == [("bill.pdf", "application/pdf", b"%PDF"), ("b.bin", "application/octet-stream", b"\0\xff")]


@pytest.mark.parametrize("content", [b"", b"x", b"\r\n.\r\n", bytes(range(256)) * 400, b"\n" * 57])
def test_any_content_arrives(content: bytes) -> None:
    assert attached(write(attachments=[attachment(content=content)])) == [("a.bin", "application/octet-stream", content)]


@pytest.mark.parametrize(("content", "charset"), [("مرحبا".encode(), "utf-8"), (b"\xff", None)])
def test_a_text_is_called_utf_8_where_it_is(content: bytes, charset: str | None) -> None:
    (part,) = read(write(attachments=[attachment("a.txt", content, type="text/plain")])).iter_attachments()
    assert part.get_content_charset() == charset


NAMES = [
    "a.pdf",
    "two words (1).txt",
    'quo"te.txt',
    "semi;colon=.txt",
    "100%.txt",
    "'single'.txt",
    "فاتورة.pdf",
    "🎉👩‍👩‍👧.png",
    "می‌خواهم.txt",
    "=?utf-8?q?x?=",
]


@pytest.mark.parametrize("name", [*NAMES, "é" * LONGEST_NAME, "x" * LONGEST_NAME, "🎉" * LONGEST_NAME, "..", "-"])
def test_any_name_arrives(name: str) -> None:
    assert attached(write(attachments=[attachment(name)]))[0][0] == name


@given(st.text(), st.binary(max_size=300))
@example('a"; filename="b', b"")
@example("a\r\nX-Evil: 1", b"")
@example("a\u202egnp.exe", b"")
def test_a_name_arrives_or_is_refused_and_adds_nothing(name: str, content: bytes) -> None:
    try:
        mail = write(attachments=[attachment(name, content)])
    except BadArguments as refused:
        assert refused.details["parameter"] == "attachments[0].name"  # noqa: PT017
        return
    (part,) = read(mail).iter_attachments()
    assert (part.get_filename(), part.get_payload(decode=True)) == (name.strip(), content)  # `email` strips it
    assert list(part.keys()) == ["Content-Type", "Content-Disposition", "Content-Transfer-Encoding"]


@pytest.mark.parametrize(
    "name", ["a\r\nBcc: x@x.org", "a\nb", "a\0", "a\x7f", "a\x85", "../../etc/passwd", "c:\\a", "a\u2028b", "a\u202eb", "a\u2067b"]
)
def test_a_name_that_is_more_than_a_name_is_refused(name: str) -> None:
    where, message = refusal(attachment(), attachment(name))
    assert where == "attachments[1].name"
    assert "give the name alone, without a path" in message
    assert name not in message


@pytest.mark.parametrize(
    ("given_", "where", "message"),
    [
        ({"content": ""}, "attachments[0]", 'has no "name"'),
        ({"name": "a"}, "attachments[0]", 'has no "content"'),
        ({"name": "a", "content": "", "path": "/etc/passwd"}, "attachments[0]", 'has more than "name", "content" and "type"'),
        ({"name": "", "content": ""}, "attachments[0].name", "must have 1 to 200 characters"),
        ({"name": "  ", "content": ""}, "attachments[0].name", "must have 1 to 200 characters"),
        ({"name": "x" * 201, "content": ""}, "attachments[0].name", "must have 1 to 200 characters"),
        ({"name": "a\ud800", "content": ""}, "attachments[0].name", "lone surrogate"),
        ({"name": "a", "content": "a"}, "attachments[0].content", "is not base64"),
        ({"name": "a", "content": "YWI=\r\n"}, "attachments[0].content", "is not base64"),
        ({"name": "a", "content": "é"}, "attachments[0].content", "is not base64"),
        ({"name": "a", "content": "file:///etc/passwd"}, "attachments[0].content", "is not base64"),
        ({"name": "a", "content": "", "type": "pdf"}, "attachments[0].type", "must be a media type"),
        ({"name": "a", "content": "", "type": "a/b\r\nX: y"}, "attachments[0].type", "must be a media type"),
        ({"name": "a", "content": "", "type": "a/b\n"}, "attachments[0].type", "must be a media type"),
        ({"name": "a", "content": "", "type": "text/html; charset=x"}, "attachments[0].type", "must be a media type"),
        ({"name": "a", "content": "", "type": "Multipart/mixed"}, "attachments[0].type", "neither multipart nor message"),
        ({"name": "a", "content": "", "type": "message/rfc822"}, "attachments[0].type", "neither multipart nor message"),
    ],
)
def test_an_attachment_that_cannot_be_used_is_named(given_: dict[str, str], where: str, message: str) -> None:
    parameter, text = refusal(given_)
    assert parameter == where
    assert message in text


def test_there_is_a_limit_to_their_number() -> None:
    assert len(attached(write(attachments=[attachment()] * MOST_ATTACHMENTS))) == MOST_ATTACHMENTS
    assert refusal(*[attachment()] * (MOST_ATTACHMENTS + 1)) == ("attachments", f'"attachments" are more than {MOST_ATTACHMENTS}')


def test_there_is_a_limit_to_their_size_together_and_up_to_it_they_are_quick() -> None:
    half = attachment(content=bytes(MOST_ATTACHED // 2))
    began = time.monotonic()
    mail = write(attachments=[half, half])
    assert time.monotonic() - began < 2
    assert len(mail.message) > MOST_ATTACHED
    assert refusal(half, half, attachment(content=b"x")) == ("attachments", f'"attachments" have more than {MOST_ATTACHED} bytes together')


def test_no_text_ends_its_part() -> None:
    first = write("hello", html="<p>", attachments=[attachment()])
    lines = re.findall(rb"^--[0-9a-f]{32}(?:--)?\r$", first.message, re.MULTILINE)
    assert len(lines) == 6
    assert len(set(lines)) == 4
    text = b"\n".join(lines).decode().replace("\r", "") + "\n"
    message = read(write(text, html=text, attachments=[attachment()]))
    assert text_of(message.get_body(["plain"])) == text_of(message.get_body(["html"])) == text
    assert len(list(message.iter_attachments())) == 1


def test_replies_go_where_that_is_said() -> None:
    assert read(write(reply_to="Help مساعدة <help@x.org>"))["Reply-To"] == "Help مساعدة <help@x.org>"
    assert read(write())["Reply-To"] is None
    assert write(reply_to="محمد@x.org").international
    with pytest.raises(BadArguments, match='"reply_to" has a line break'):
        write(reply_to="a@x.org\r\nBcc: b@y.org")


@pytest.mark.parametrize("wrong", [["a.pdf"], [{"name": "a", "content": 1}], [{"name": "a", "content": None}], "a.pdf", {"name": "a"}])
@pytest.mark.parametrize("task", ["send_mail", "send_mails"])
def test_what_is_no_attachment_is_refused_before_the_task_is_called(wrong: Any, task: str) -> None:
    REGISTRY.load()
    args = {"from": "a@x.org", "to": "b@y.org" if task == "send_mail" else ["b@y.org"], "subject": "", "contents": "", "attachments": wrong}
    with pytest.raises(BadArguments) as caught:
        REGISTRY.get(task).bind(args)
    assert caught.value.details["parameter"].startswith("attachments")
