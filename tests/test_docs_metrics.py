"""docs/metrics.md says of metrics, log keys and alerts what the code says, and its commands can be typed as they stand."""

import ast
import io
import json
import logging
import re
import shlex
from pathlib import Path

import pytest

from app import log
from app.alerts import ALERTS, name_of
from app.commandline import CLIENT_COMMANDS
from app.gateway.metrics import METRICS
from tests.harness import ROOT

DOC = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")


def table(head: str) -> list[list[str]]:
    """The cells of each row of the table whose head begins so."""
    _, _, rest = DOC.partition(f"| {head} |")
    rows = rest.split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_the_metrics_are_those_that_are_exposed() -> None:
    wanted = [
        [
            f"`{kind.name}{'_total' if kind.type == 'counter' else ''}`",
            kind.type,
            ", ".join(f"`{label}`" for label in kind.labels),
            kind.help,
        ]
        for kind in METRICS
    ]
    assert table("metric") == wanted


def test_the_alerts_are_those_that_the_log_marks() -> None:
    assert table("alert") == [[f"`{name}`", meaning] for name, meaning in ALERTS.items()]


def test_every_alert_is_logged_somewhere_and_every_named_warning_is_an_alert() -> None:
    logged = {name for path in product() for name in named_entries(path)}
    assert logged == set(ALERTS)


def product() -> list[Path]:
    """The files that a server runs; what only clients load has no log."""
    files = [ROOT / "run.py", *(ROOT / "app").rglob("*.py"), *(ROOT / "workers").rglob("*.py")]
    return [path for path in files if not {"commands", "remote", "tasks"} & set(path.parts) and "test" not in path.name]


def named_entries(path: Path) -> set[str]:
    """The names of the entries that a file logs as a warning or worse (or `log`s at a level that depends)."""
    levels = {"warning", "error", "exception", "critical", "log"}
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in levels:
            texts = [arg.value for arg in node.args[:2] if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
            found |= {name for text in texts if (name := name_of(text))}
    return found


def test_the_keys_of_a_json_entry_are_those_that_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    handler = logging.StreamHandler(stream := io.StringIO())
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    log.configure("worker-1", form="json")
    ours = logging.getLogger().handlers[0]
    assert isinstance(ours, logging.StreamHandler)
    ours.setStream(stream)
    try:
        raise ValueError("oh")
    except ValueError:
        logging.getLogger("x").error("disk-full: %d", 1, exc_info=True, stack_info=True, extra={"task": "t", "connection": "c"})
    assert list(json.loads(stream.getvalue())) == [row[0].strip("`") for row in table("key")]


def test_its_commands_are_there() -> None:
    commands = [shlex.split(line, comments=True) for line in re.findall(r"^    (\./run\.py .+)$", DOC, re.MULTILINE)]
    assert [words[1] for words in commands] == ["status", "connections"]
    assert {words[1] for words in commands} <= set(CLIENT_COMMANDS)
