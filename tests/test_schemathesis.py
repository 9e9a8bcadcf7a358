"""The HTTP API as its own description has it, by schemathesis: requests made from `/openapi.json`, right and wrong ones, and what follows
from them. One check is left out: a task that was cancelled is not gone, as what is deleted would be; its end is there to be read.
"""

import os
import subprocess
import sys
from pathlib import Path

from tests.harness import Server

FLAGS = ("--workers", "1", "--max-unfinished", "100000")
OPTIONS = {
    "--max-examples": "10",
    "--seed": "1",
    "--request-timeout": "10",
    "--header": "Prefer: wait=0",  # a stream of events would go on for as long as its task does
    "--exclude-checks": "use_after_free",
    "--generation-database": "none",
}


def test_schemathesis_finds_nothing(server: Server, tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("schemathesis")
    options = [word for option in OPTIONS.items() for word in option]
    command = [str(program), "run", f"{server.http_url}openapi.json", *options]
    environ = os.environ | {"NO_COLOR": "1"}
    result = subprocess.run(command, capture_output=True, text=True, timeout=55, cwd=tmp_path, env=environ, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "6 selected / 6 total" in result.stdout
    assert "request-failed" not in server.log()
