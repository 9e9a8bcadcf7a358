"""What `docs/http.md` shows is what happens: its commands are run against a real server, in order, and their output compared."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from app.gateway.problems import PROBLEMS
from tests.documents import commands_of, pattern
from tests.harness import Server

DOCUMENT = (Path(__file__).resolve().parent.parent / "docs" / "http.md").read_text(encoding="utf-8")
EXAMPLE = "http://127.0.0.1:8080/"


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
def test_its_commands_do_what_it_says(server: Server) -> None:
    found = list(commands_of(DOCUMENT))
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
