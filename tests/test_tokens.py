"""The tokens file, and what is made of it: what cannot be used is refused, what is good is found, patterns mean what they say."""

import hashlib
import os
import sys
import time
from pathlib import Path

import pytest

from app.errors import Forbidden, SettingsError, Unauthorized
from app.gateway.identity import Grant, Identity
from app.gateway.tokens import Tokens
from tests.harness import ROOT, Process
from tests.tokenfile import TokenFile


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        ("", 0o644, "chmod 600"),
        ("", 0o640, "chmod 600"),
        ("[[token]]\nsubject = 'a'", 0o600, "sha256 wants 64"),
        ("[[token]]\nsubject = 'a b'\nsha256 = '" + "0" * 64 + "'", 0o600, "a subject wants"),
        ("[[token]]\nsubject = 'a'\nsha256 = '" + "0" * 64 + "'\nfunction = 'x'", 0o600, "nothing else"),
        ("[[token]]\nsubject = 'a'\nsha256 = '" + "0" * 64 + "'\nexpires = 'soon'", 0o600, "expires wants a date"),
        (("[[token]]\nsubject = 'a'\nsha256 = '" + "0" * 64 + "'\n") * 2, 0o600, "twice"),
        ("tokens = 1", 0o600, "nothing but [[token]] tables"),
        ("[[", 0o600, "tokens.toml"),
        (None, 0, "No such file"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(tmp_path: Path, text: str | None, mode: int, said: str) -> None:
    path = tmp_path / "tokens.toml"
    if text is not None:
        path.write_text(text)
        path.chmod(mode)
    with pytest.raises(SettingsError) as refused:
        Tokens(path)
    assert said in refused.value.message
    assert refused.value.message.startswith("--tokens: ")


def test_a_file_that_others_can_read_ends_the_start_with_one_line(tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text("")
    path.chmod(0o640)
    process = Process([sys.executable, str(ROOT / "run.py"), "--ws", "127.0.0.1:0", "--text", "127.0.0.1:0", "--tokens", str(path)])
    try:
        assert process.wait() == 2
        assert f"--tokens: others can get at {path} (mode 0640); chmod 600 {path}" in process.log()
        assert "Traceback" not in process.log()
    finally:
        process.clean()


def test_a_fifo_or_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError):
        Tokens(tmp_path)
    os.mkfifo(tmp_path / "fifo", 0o600)
    for path in (Path("/dev/null"), tmp_path / "fifo"):
        with pytest.raises(SettingsError, match="is not a file"):
            Tokens(path)


def test_a_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text("")
    path.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(path, 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(SettingsError, match="belongs to another user"):
        Tokens(path)


def test_a_token_is_found_by_itself_alone(tmp_path: Path) -> None:
    file = TokenFile(tmp_path / "tokens.toml")
    file.add("one", "anna")
    file.add("two", "bert", expires="2020-01-01T00:00:00Z")
    tokens = Tokens(file.path)
    found = tokens.find("one")
    assert found is not None
    assert found.subject == "anna"
    for other in ("", "on", "one ", "ONE", "two", hashlib.sha256(b"one").hexdigest(), "\ud800"):
        assert tokens.find(other) is None


def test_who_shows_the_same_token_has_the_same_grant_and_loses_it_together(tmp_path: Path) -> None:
    file = TokenFile(tmp_path / "tokens.toml")
    file.add("one", "anna")
    tokens = Tokens(file.path)
    grant = tokens.find("one")
    assert grant is not None
    assert tokens.find("one") is grant
    file.add("one", "anna", functions='["echo"]')
    tokens.look()
    assert tokens.find("one") is grant
    assert not grant.may_call("other")
    file.add("one", "bert")  # another subject is another owner
    tokens.look()
    assert not grant.is_good
    with pytest.raises(Unauthorized):
        grant.check()


@pytest.mark.parametrize(
    ("patterns", "yes", "no"),
    [
        (("*",), ("", "anything", "a\nb"), ()),
        ((), (), ("", "echo")),
        (("echo",), ("echo",), ("echo2", "Echo", "xecho", "echo\n", "ech")),
        (("send_*", "a?c"), ("send_", "send_mail", "abc"), ("send", "resend_mail", "ac", "abbc")),
        (("[ab]x", "a.c"), ("ax", "bx", "a.c"), ("cx", "abc", "[ab]x")),
        (("(echo|mail)", "+"), ("(echo|mail)", "+"), ("echo", "mail")),
    ],
)
def test_patterns(patterns: tuple[str, ...], yes: tuple[str, ...], no: tuple[str, ...]) -> None:
    grant = Grant.of(Identity("anna", patterns))
    assert [name for name in yes if not grant.may_call(name)] == []
    assert [name for name in no if grant.may_call(name)] == []
    for name in no:
        with pytest.raises(Forbidden):
            grant.check_call(name)


@pytest.mark.parametrize(
    ("subject", "functions", "expires"),
    [("", ("*",), None), ("a b", ("*",), None), ("a\n", ("*",), None), ("x" * 201, ("*",), None), ("a\u202e", ("*",), None),
     ("a", "echo", None), ("a", (1,), None), ("a", ("*",), "soon"), ("a", ("*",), float("nan")), (7, ("*",), None)],
)  # fmt: skip
def test_what_is_no_identity(subject: str, functions: tuple[str, ...], expires: float) -> None:
    with pytest.raises(ValueError, match=r"wants|want"):
        Identity(subject, functions, expires)


def test_an_identity_that_ends() -> None:
    assert Grant.of(Identity("a", expires=time.time() + 60)).is_good
    assert not Grant.of(Identity("a", expires=time.time() - 0.001)).is_good
