"""The README, and the page about the promise, keep to what the code says."""

import re
import shlex
import sys
from pathlib import Path

from app.table import TABLE
from tests.harness import ROOT, Process, Server

README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands() -> list[list[str]]:
    """The lines of the README that make a virtual environment, as words."""
    return [shlex.split(line) for line in README.splitlines() if line.startswith("    python3 -m venv")]


def test_its_first_command_starts_the_server_and_its_second_the_tests() -> None:
    first, second = commands()
    assert first == shlex.split("python3 -m venv .venv && .venv/bin/pip install -q -r requirements.txt && .venv/bin/python run.py")
    assert second == shlex.split("python3 -m venv .venv && .venv/bin/pip install -q -r requirements-dev.txt && .venv/bin/python -m pytest")


def test_its_own_task_runs_as_it_stands(tmp_path: Path) -> None:
    (code,) = re.findall(
        r"^```python\n(.*?)^```$", README.partition("\n## Write a task\n")[2].partition("\n- ")[0], re.MULTILINE | re.DOTALL
    )
    (tmp_path / "mycompany").mkdir()
    (tmp_path / "mycompany" / "jobs.py").write_text(code.replace("time.sleep(1)", "time.sleep(0)"))
    start, call = (shlex.split(line) for line in README.splitlines() if re.match(r"    \S+ run\.py (--tasks my|call write_)", line))
    server = Server(*start[2:], cwd=tmp_path)
    calling = Process([sys.executable, str(ROOT / "run.py"), *call[2:]], {"HANDOFF_WS": server.ws_url.split("/")[2]})
    try:
        assert calling.wait() == 0, calling.log()
        assert calling.out() == "2\n"
    finally:
        calling.clean()
        server.clean()


def test_its_table_of_settings_is_the_one_that_is_read() -> None:
    for setting in TABLE:
        default = "" if "(default:" in setting.help or not setting.default else f"`{setting.default}`"
        assert f"| `{setting.flag}` | {default} | {setting.help} |" in README


def test_its_gateway_is_the_one_in_the_examples() -> None:
    code = (ROOT / "examples/seed_gateway.py").read_text(encoding="utf-8").split('"""', 2)[2]
    lines = [line for line in code.splitlines() if line.strip() and '"""' not in line]
    assert all(line in README.splitlines() for line in lines)


def test_the_files_that_it_names_are_there() -> None:
    words = {
        word.strip("`,;:()").rstrip(".`")
        for word in README.split()
        if word.startswith(("`app/", "`workers/", "`tests/", "`examples/", "`bench/", "`.ci/"))
    }
    assert words
    assert [word for word in words if not (ROOT / word).exists()] == []


def test_each_test_that_the_promise_names_is_there() -> None:
    promise = (ROOT / "docs/promise.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/\w+\.py)(?:::(\w+))?`", promise)
    assert len(named) > 10
    for path, name in named:
        assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8") or not name, (path, name)
        assert (ROOT / path).exists()
