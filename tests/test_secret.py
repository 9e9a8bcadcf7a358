"""The shared secret: which files and variables are taken, and that it is seen nowhere afterwards."""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from app.errors import SettingsError
from app.secret import Secret, read_secret, take_secret
from app.settings import load, parser
from tests.harness import ROOT

WORD = "correct-horse-battery-staple-0123456789"


def written(path: Path, text: str = WORD + "\n", mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("text", [WORD, WORD + "\n", WORD + "\r\n"])
def test_the_end_of_the_line_is_no_part_of_it(tmp_path: Path, text: str) -> None:
    assert read_secret(written(tmp_path / "s", text)).sign(b"x") == Secret(WORD.encode()).sign(b"x")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610, 0o601, 0o644, 0o777])
def test_a_file_that_others_can_get_at_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(SettingsError, match=rf"--secret-file: .*mode {mode:04o}.*chmod 600"):
        read_secret(written(tmp_path / "s", mode=mode))


def test_one_that_only_its_owner_can_read_is_taken(tmp_path: Path) -> None:
    assert read_secret(written(tmp_path / "s", mode=0o400))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "s")
    os.chown(path, 12345, 12345)
    with pytest.raises(SettingsError, match="belongs to another user"):
        read_secret(path)


MISTAKES: dict[str, Callable[[Path], Path]] = {
    "cannot read": lambda home: home / "nothing",
    "is not a file": lambda home: home,
    "32 characters or more": lambda home: written(home / "short", "hunter2\n"),
    "more than 4096": lambda home: written(home / "large", "x" * 5000),
}


@pytest.mark.parametrize("says", MISTAKES)
def test_what_is_no_secret_is_refused_with_what_to_do(tmp_path: Path, says: str) -> None:
    with pytest.raises(SettingsError, match=says) as caught:
        read_secret(MISTAKES[says](tmp_path))
    assert "hunter2" not in caught.value.message


def test_a_pipe_does_not_hold_the_start(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(SettingsError, match="is not a file"):
        read_secret(tmp_path / "pipe")


def test_the_variable_is_gone_once_it_was_read() -> None:
    environ = {"HANDOFF_SECRET": WORD, "PATH": "/bin"}
    secret = take_secret(None, environ)
    assert secret is not None
    assert secret.sign(b"x") == Secret(WORD.encode()).sign(b"x")
    assert environ == {"PATH": "/bin"}
    assert take_secret(None, environ) is None


@pytest.mark.parametrize("path", [None, "file"])
def test_it_is_gone_too_where_it_is_refused(tmp_path: Path, path: str | None) -> None:
    environ = {"HANDOFF_SECRET": "hunter2"}
    with pytest.raises(SettingsError) as caught:
        take_secret(written(tmp_path / path) if path else None, environ)
    assert environ == {}
    assert "hunter2" not in caught.value.message


def test_nothing_that_prints_a_value_prints_it() -> None:
    secret = Secret(WORD.encode())
    assert WORD not in f"{secret} {secret!r} {[secret]} {secret.__class__.__dict__}"
    assert not hasattr(secret, "__dict__")
    with pytest.raises(TypeError):
        pickle.dumps(secret)


def test_there_is_no_flag_and_no_key_for_the_secret_itself(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--secret"):
        load(["--secret", WORD], {})
    (tmp_path / "it.toml").write_text(f'secret = "{WORD}"\n')
    with pytest.raises(SettingsError, match="no setting is called 'secret'"):
        load(["--config", str(tmp_path / "it.toml")], {})
    help_text = parser().format_help()
    assert "HANDOFF_SECRET" in help_text
    assert "--secret " not in help_text


def test_the_kernel_does_not_show_it_either_once_it_was_taken() -> None:
    program = """
import os, subprocess, sys
from app.secret import take_secret
own = lambda: open("/proc/self/environ", "rb").read()
before = b"correct-horse" in own()
assert take_secret(None, os.environ)
child = subprocess.run(["cat", "/proc/self/environ"], capture_output=True).stdout
print(before, b"correct-horse" in own(), b"correct-horse" in child, "HANDOFF_SECRET" in os.environ, b"OTHER=kept" in own())
"""
    env = {"PATH": os.environ["PATH"], "HANDOFF_SECRET": WORD, "OTHER": "kept"}
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=env, capture_output=True, text=True, timeout=30, check=False)
    assert (done.stdout, done.stderr) == ("True False False False True\n", "")
