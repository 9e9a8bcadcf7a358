"""Autobahn's fuzzing client (autobahntestsuite 0.8.2), cases 1 to 7, against the example that echoes.

It needs Python 2.7: made with `virtualenv<20.22`, its `wstest` is found in `.autobahn/bin` of the repository or by HANDOFF_WSTEST.
"""

import json
import os
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.harness import ROOT, Server

GOOD = {"OK", "NON-STRICT", "INFORMATIONAL"}
CASES = 246


def wstest() -> str:
    """The program; skips the test where there is none."""
    found = os.environ.get("HANDOFF_WSTEST") or str(ROOT / ".autobahn" / "bin" / "wstest")
    if not os.access(found, os.X_OK):
        pytest.skip(f"no Autobahn: {found} is not there (it wants Python 2.7; HANDOFF_WSTEST names another place)")
    return found


def fuzz(url: str, folder: Path) -> dict[str, dict[str, Any]]:
    """Run all cases; what came of each."""
    cases = [f"{group}.*" for group in range(1, 8)]
    spec = {"outdir": str(folder / "report"), "servers": [{"url": url}], "cases": cases, "options": {"failByDrop": False}}
    (folder / "spec.json").write_text(json.dumps(spec))
    command = [wstest(), "-m", "fuzzingclient", "-s", str(folder / "spec.json")]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=55, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    results: dict[str, dict[str, dict[str, Any]]] = json.loads((folder / "report" / "index.json").read_text())
    return next(iter(results.values()))


def test_every_case_is_ok_non_strict_or_informational(start_server: Callable[..., Server], tmp_path: Path) -> None:
    wstest()
    server = start_server("--workers", "1", "--handler", "examples.echo_gateway", "--max-message", "16MiB")
    results = fuzz(server.ws_url.removesuffix("ws"), tmp_path)
    print(Counter(result["behavior"] for result in results.values()))
    bad = {name: result for name, result in results.items() if not {result["behavior"], result["behaviorClose"]} <= GOOD}
    assert not bad
    assert len(results) == CASES
    closes = {result["remoteCloseCode"] for result in results.values()}
    assert {1000, 1001, 1002, 1003, 1007, 1009, 1011, 3000, 3999, 4000, 4999} <= closes
    assert "Traceback" not in server.log()
