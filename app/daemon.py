"""Into the background: the master in a session of its own, with a file for what is said; whoever started it waits until it serves.

What the master does is not here, nor how it is found again: `app/master.py`, `app/orders.py`.
"""

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from app.child import EXIT_CRASHED, flush
from app.errors import SettingsError
from app.privileges import Identity

LOG_NAME = "handoff.log"
"""In the data directory."""

_READY = b"ready\n"
_MOST_SAID = 16 * 1024

Serve = Callable[[Callable[[str], None], tuple[int, ...]], int]
"""The master's life: is given what announces that it is ready, and the files that are for it alone; the exit code."""


def start(serve: Serve, path: Path, identity: Identity) -> int:
    """Start it; returns once it is ready (0, and what it announced is printed) or has ended (its exit code, and what it said is printed).

    Raises `SettingsError` where the file cannot be written.
    """
    try:
        output = identity.open(path, os.O_WRONLY | os.O_APPEND)
    except OSError as error:
        raise SettingsError(f"--data-dir: cannot write to {path}: {error.strerror}") from None
    began = os.fstat(output).st_size
    reader, writer = os.pipe()
    flush()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _live(serve, output, writer)
    os.close(writer)
    os.close(output)
    announced = _listen(reader, pid)
    if announced.endswith(_READY):
        print(announced.decode(), end="", flush=True)
        return 0
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with open(path, "rb") as file:
        file.seek(max(began, os.fstat(file.fileno()).st_size - _MOST_SAID))
        sys.stderr.write(file.read().decode(errors="replace"))
    print(f"handoff: it has not started; all of that is in {path}", file=sys.stderr)
    return code if code > 0 else EXIT_CRASHED


def _live(serve: Serve, output: int, writer: int) -> None:
    code = EXIT_CRASHED
    try:
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDONLY)
        for ours, standard in ((nothing, 0), (output, 1), (output, 2)):
            os.dup2(ours, standard)
        os.close(nothing)
        os.close(output)
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        code = _serve(serve, writer)
    except Exception:  # noqa: BLE001 - the barrier of the process: nobody above it would say what happened
        traceback.print_exc()
    finally:
        flush()
        os._exit(code)


def _serve(serve: Serve, writer: int) -> int:
    def announce(text: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # nobody waits any more
            os.write(writer, text.encode())

    return serve(announce, (writer,))


def _listen(reader: int, pid: int) -> bytes:
    """What is announced, to its last line, or to the end of whoever would have said it."""
    said = b""
    try:
        while not said.endswith(_READY) and (more := os.read(reader, 4096)):
            said += more
    except KeyboardInterrupt:
        os.kill(pid, signal.SIGINT)
    return said
