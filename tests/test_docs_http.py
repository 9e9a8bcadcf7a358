"""What `docs/http.md` shows is what happens: its commands are run against a real server, in order, and their output compared."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.gateway.problems import PROBLEMS
from tests.harness import Server

DOCUMENT = (Path(__file__).resolve().parent.parent / "docs" / "http.md").read_text(encoding="utf-8")
EXAMPLE = "http://127.0.0.1:8080/"


def examples() -> Iterator[tuple[str, str]]:
    """Each command with the output that it is said to have."""
    for block in re.findall(r"^```console\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL):
        for example in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = example.partition("\n")
            yield command, output


def pattern(output: str) -> str:
    """`…` stands for anything within a line, or for any lines where it has one for itself."""
    lines = (r"(?:.*\n)*?" if line == "…" else re.escape(line).replace("…", ".*?") + r"\n" for line in output.splitlines())
    return "".join(lines)


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
def test_its_commands_do_what_it_says(server: Server) -> None:
    found = list(examples())
    assert len(found) > 10
    for command, output in found:
        assert command.startswith("curl ")
        assert EXAMPLE in command
        ours = command.replace("curl ", "curl -sS --max-time 15 ", 1).replace(EXAMPLE, server.http_url)
        result = subprocess.run(ours, shell=True, capture_output=True, text=True, timeout=20, check=False)
        said = result.stdout.replace("\r\n", "\n")
        said = said if said.endswith("\n") else said + "\n"
        assert re.fullmatch(pattern(output), said), f"{command}\n{said}{result.stderr}"


def test_its_table_of_problems_is_the_one_that_is_answered_with() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d{3}) \| (.*) \|$", DOCUMENT, re.MULTILINE)
    assert rows == [(code, str(kind.number), kind.title) for code, kind in PROBLEMS.items()]
