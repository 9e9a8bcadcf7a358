"""The client library of the page, handoff.js: its tests in tests/node run in Node, against a scripted server made with npm's ws.

What it does with the real server is tried in test_page.py.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

NODE_TESTS = Path(__file__).parent / "node"


def test_handoff_js_keeps_tasks_whole_over_lost_repeated_and_refused_messages() -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    if not (NODE_TESTS / "node_modules" / "ws").is_dir():
        pytest.skip("npm's ws is not installed: npm ci --prefix tests/node")
    ran = subprocess.run([node, "--test"], cwd=NODE_TESTS, capture_output=True, text=True, timeout=50, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "# fail 0" in ran.stdout
