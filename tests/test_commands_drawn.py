"""What a person sees of the commands on a terminal: a bar while it runs, tables, and what the shell completes."""

import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.harness import ROOT, Server

FLAGS = ("--workers", "1")
SEEN = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
"""The orders to the terminal, which are not to be read."""


def on_terminal(server: Server, *argv: str, interrupt_at: str = "") -> tuple[int, str, str]:
    """The exit status, what stood on the terminal, and all that was sent to it; Ctrl-C is pressed once this text is there."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ |= {"TERM": "xterm", "COLUMNS": "120", "HANDOFF_WS": server.ws_url.split("/")[2]}
        os.execv(sys.executable, [sys.executable, str(ROOT / "run.py"), *argv])
    sent, deadline = b"", time.monotonic() + 20
    while time.monotonic() < deadline:
        if interrupt_at and interrupt_at.encode() in sent:
            os.write(terminal, b"\x03")
            interrupt_at = ""
        if not select.select([terminal], [], [], 0.05)[0]:
            continue
        try:
            sent += os.read(terminal, 65536)
        except OSError:  # its other end is closed
            break
    os.close(terminal)
    text = sent.decode(errors="replace")
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), SEEN.sub("", text), text


def test_progress_is_a_bar_that_is_gone_when_the_result_comes(server: Server) -> None:
    to = json.dumps([f"user-{number}@example.org" for number in range(300)])
    status, seen, sent = on_terminal(server, "call", "send_mails", "from=a@x.org", f"to={to}", "subject=s", "contents=c")
    assert status == 0
    assert re.search(r"send_mails ━+ +\d+/300", seen)
    assert json.loads(seen.splitlines()[-1])["sent"] == 300
    assert sent.rindex("\x1b[2K") < sent.rindex('"sent"'), "the bar's line is erased"


def test_without_progress_nothing_is_drawn(server: Server) -> None:
    status, seen, sent = on_terminal(server, "call", "--id", "plain", "countdown", "start=1")
    assert (status, seen) == (0, "handoff: accepted as plain\r\n1\r\n0\r\n")
    assert sent == seen


def test_lists_are_tables_with_a_head(server: Server) -> None:
    on_terminal(server, "call", "--id", "shown", "echo")
    status, seen, _ = on_terminal(server, "tasks")
    assert status == 0
    assert re.search(r"id +function +state +progress +age", seen)
    assert re.search(r"shown +echo +succeeded +\d+s", seen)
    assert re.search(r"function +parameters", on_terminal(server, "functions")[1])


def test_follow_draws_the_table_again_until_ctrl_c(server: Server) -> None:
    on_terminal(server, "call", "--id", "watched", "echo")
    status, seen, _ = on_terminal(server, "tasks", "--follow", interrupt_at="watched")
    assert status == 0
    assert "watched" in seen


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["run.py", "f"], ["functions"]),
        (["run.py", "call", "countd"], ["countdown"]),
        (["run.py", "call", "send_mail", "s"], ["subject="]),
        (["run.py", "call", "countdown", "start=1", ""], ["interval="]),
        (["run.py", "gateway", "--pin"], ["--ping-interval", "--ping-timeout"]),
        (["run.py", "tasks", "--state", "c"], ["cancelled"]),
        (["run.py", "call", "--ws", "127.0.0.1:1", ""], []),
    ],
)
def test_bash_completes_commands_flags_functions_and_parameters(server: Server, words: list[str], offered: list[str]) -> None:
    quoted = " ".join(f"'{word}'" for word in words)
    script = f"""
source <(./run.py completion bash)
COMP_WORDS=({quoted}) COMP_CWORD={len(words) - 1}
_runpy_completion ./run.py
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {"PATH": path, "HANDOFF_WS": server.ws_url.split("/")[2]}
    ran = subprocess.run(["bash", "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert (ran.stdout.split(), ran.stderr) == (offered, "")


IN_FISH = "./run.py completion fish | source; complete -C './run.py call countd'; complete -C './run.py tasks --state c'"
IN_ZSH = """
compdef() { }; compadd() { print -l -- $completions }; _describe() { print -l -- $completions_with_descriptions }
source <(./run.py completion zsh)
words=(./run.py call countd) CURRENT=3; _runpy_completion
words=(./run.py tasks --state c) CURRENT=4; _runpy_completion
"""


@pytest.mark.parametrize(("shell", "script"), [("fish", IN_FISH), ("zsh", IN_ZSH)])
def test_zsh_and_fish_complete_a_program_that_is_not_in_the_path(server: Server, tmp_path: Path, shell: str, script: str) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {"PATH": path, "HOME": str(tmp_path), "HANDOFF_WS": server.ws_url.split("/")[2]}
    ran = subprocess.run([program, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ([re.split("[:\t]", line)[0] for line in ran.stdout.splitlines()], ran.stderr) == (["countdown", "cancelled"], "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell_is_one_that_it_can_read(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    script = subprocess.run([sys.executable, ROOT / "run.py", "completion", shell], capture_output=True, text=True, timeout=30, check=True)
    checked = subprocess.run([shell, "-n"], input=script.stdout, capture_output=True, text=True, timeout=30, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "_RUN_PY_COMPLETE" in script.stdout
