"""`docs/testing.md` is a project that works: its files are written down, and a pytest of their own runs them."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.documents import files_of
from tests.harness import ROOT

pytestmark = pytest.mark.timeout(180)  # a pytest in a pytest, with servers, on a machine that may be busy

DOCUMENT = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")

FAILING = """
import shop

def test_gold(run_task):
    assert run_task(shop.bill, {"items": ["tea", "gold"]}).result == {"total": 8}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The example, with the path of this Handoff in place of the one that it names."""
    files = files_of(DOCUMENT)
    assert [name for name, _ in files] == ["shop.py", "conftest.py", "pytest.ini", "test_shop.py", "test_server.py"]
    for name, text in files:
        (tmp_path / name).write_text(text.replace("/srv/handoff", str(ROOT)), encoding="utf-8")
    return tmp_path


def run_pytest(project: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-W", "error", "--color=no", *options]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=150, check=False)


def test_the_project_passes(project: Path) -> None:
    done = run_pytest(project, "-n", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "7 passed" in done.stdout


def test_a_task_that_raises_fails_the_test_and_shows_where_also_without_xdist(project: Path) -> None:
    (project / "test_gold.py").write_text(FAILING, encoding="utf-8")
    done = run_pytest(project, "test_shop.py", "test_gold.py", "-p", "no:xdist")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed, 5 passed" in done.stdout
    assert "AssertionError: the task bill has failed: failed: KeyError: 'gold'" in done.stdout
    assert "its events: started, progress, failed" in done.stdout
    assert "total += PRICES[item]" in done.stdout  # the line of the task that raised
