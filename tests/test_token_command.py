"""`run.py token`, and the commands where a token is asked for: by file, by variable, and never by what everyone can read."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.gateway.tokens import Tokens
from tests.harness import ROOT, Server
from tests.tokenfile import TokenFile

ANNA = "anna-" + "a" * 40


def run(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HANDOFF_")}
    command = [sys.executable, str(ROOT / "run.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, env=clean | env)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    tokens = TokenFile(tmp_path_factory.mktemp("tokens") / "tokens.toml")
    tokens.add(ANNA, "anna", functions='["echo"]')
    running = Server("--workers", "1", "--tokens", str(tokens.path), "--rate-failures", "0")
    yield running
    running.clean()


def where(server: Server) -> tuple[str, str]:
    return "--ws", server.ws_url.removeprefix("ws://").removesuffix("/ws")


def test_what_it_makes_is_good(tmp_path: Path) -> None:
    made = run("token", "--function", "send_*", "--function", 'odd"name', "--days", "1", "--operator", "shop")
    assert made.returncode == 0
    path = tmp_path / "tokens.toml"
    path.write_text(made.stderr + run("token", "other").stderr)
    path.chmod(0o600)
    token = made.stdout.strip()
    assert len(token) >= 43
    assert token not in made.stderr
    grant = Tokens(path).find(token)
    assert grant is not None
    assert (grant.subject, grant.operator, grant.is_good) == ("shop", True, True)
    assert [grant.may_call(name) for name in ("send_mail", 'odd"name', "echo")] == [True, True, False]


def test_each_is_another() -> None:
    assert run("token", "a").stdout != run("token", "a").stdout


@pytest.mark.parametrize("words", [("token",), ("token", "a b"), ("token", ""), ("token", "--days", "0", "a"), ("token", "--function")])
def test_what_cannot_be_made_is_said_in_one_line(words: tuple[str, ...]) -> None:
    refused = run(*words)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.count("\n") == 1


def test_commands_show_the_token_of_the_variable_or_of_a_file(server: Server, tmp_path: Path) -> None:
    assert run("call", *where(server), "echo", "n=1", HANDOFF_TOKEN=ANNA).stdout == '{"n":1}\n'
    path = tmp_path / "token"
    path.write_text(ANNA + "\n")
    path.chmod(0o600)
    assert run("call", *where(server), "--token-file", str(path), "echo", "n=2").stdout == '{"n":2}\n'
    assert "echo" in run("tasks", *where(server), HANDOFF_TOKEN_FILE=str(path)).stdout
    listed = run("functions", *where(server), HANDOFF_TOKEN=ANNA)
    assert "echo" in listed.stdout
    assert "countdown" not in listed.stdout


def test_a_token_file_that_others_can_read_is_not_used(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(ANNA)
    path.chmod(0o644)
    refused = run("tasks", *where(server), "--token-file", str(path))
    assert refused.returncode == 2
    assert "chmod 600" in refused.stderr
    assert ANNA not in refused.stderr


@pytest.mark.parametrize("token", ["", "nobody", "ä", "two words"])
def test_without_a_good_one_it_is_refused_in_one_line_and_not_tried_again(server: Server, token: str) -> None:
    for words in (("call", "--give-up", "30", "echo"), ("tasks",), ("functions",)):
        refused = run(words[0], *where(server), *words[1:], HANDOFF_TOKEN=token)
        assert refused.returncode != 0
        assert refused.stderr.count("\n") == 1
        assert "Traceback" not in refused.stderr


def test_what_is_not_allowed_is_forbidden(server: Server) -> None:
    refused = run("call", *where(server), "countdown", HANDOFF_TOKEN=ANNA)
    assert "forbidden" in refused.stderr
