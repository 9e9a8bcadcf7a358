"""`docs/operations.md`: its commands are run against a server that works, its table of files is what is there, and its names of log lines
are those that are logged."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.documents import commands_of, pattern
from tests.harness import ROOT, Server, WsClient

pytestmark = pytest.mark.timeout(120)

DOCUMENT = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
TOOLS = ("sqlite3", "fuser")


def first_column(heading: str) -> set[str]:
    """What is named in the first column of the table under this heading."""
    section = DOCUMENT.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return {name for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE) for name in re.findall(r"`([^`]+)`", row)}


def run_echo(client: WsClient, name: str) -> dict[str, object]:
    client.send({"id": name, "function": "echo", "args": {"text": name}, "events": "final"})
    answer: dict[str, object] = client.final(name, 30)
    return answer


@pytest.mark.skipif(not all(map(shutil.which, TOOLS)), reason=f"not all of {', '.join(TOOLS)}")
def test_a_backup_made_while_it_runs_can_be_started_from(start_server: Callable[..., Server], tmp_path: Path) -> None:
    server = start_server(data_dir=tmp_path / "var")
    with WsClient(server.ws_url) as client:
        for number in range(200):
            client.send({"id": f"before{number}", "function": "echo", "args": {"number": number}, "events": "final"})
        assert run_echo(client, "known")["event"] == "succeeded"
        client.send({"id": "waits", "function": "echo", "args": {}, "delay": 3600})
        assert client.until(lambda message: message.get("id") == "waits")["event"] == "accepted"
        for command, output in commands_of(DOCUMENT):
            done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
            said = done.stdout + done.stderr if output else ""  # where nothing is told, its tools may warn
            assert re.search(pattern(output) or "^$", said), f"{command}\n{said}"
            assert bool(done.returncode) == output.startswith("Error"), f"{command}\n{done.stderr}"
        assert run_echo(client, "after")["event"] == "succeeded", "it goes on"
    restored = start_server(data_dir=tmp_path / "backup")
    with WsClient(restored.ws_url) as client:
        client.send({"id": "known", "attach": 0})
        assert client.final("known")["result"] == {"text": "known"}
        states = {task["id"]: task["state"] for task in client.ask({"list": {"limit": 300}})["list"]}
    assert states["waits"] == "queued"
    assert "after" not in states


def test_its_table_of_files_is_what_is_there(start_server: Callable[..., Server]) -> None:
    server = start_server()
    with WsClient(server.ws_url) as client:
        client.send(
            {"id": "m1", "function": "send_mail", "args": {"from": "a@x.org", "to": "b@y.org", "contents": "hi"}, "events": "final"}
        )
        assert client.final("m1")["event"] == "succeeded"
    found = sorted(server.data_dir.iterdir())
    assert {path.name for path in found} == first_column("What is on the disk")
    assert all(path.stat().st_mode & 0o077 == 0 for path in [server.data_dir, *found])


def test_the_lines_that_it_names_are_those_that_are_logged() -> None:
    sources = [path.read_text(encoding="utf-8") for folder in ("app", "workers") for path in (ROOT / folder).rglob("*.py")]
    logged = "\n".join([*sources, (ROOT / "run.py").read_text(encoding="utf-8")]).replace('"link-%s: ', '"link-silent: ')
    names = first_column("What the log says")
    assert names
    assert [name for name in sorted(names) if f'"{name}: ' not in logged] == []
