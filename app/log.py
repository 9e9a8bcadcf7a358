"""Logging, set up once a process: one entry is one line, with the time, the level, the process and pid, and what the entry is about.

    2026-05-01T12:00:00.123Z WARNING worker-2[4711] alert=yes task=6f1c: task-stuck: …
    {"at":"2026-05-01T12:00:00.123Z","level":"warning","process":"worker-2","pid":4711,"event":"task-stuck","alert":true,"task":"6f1c",…}

What came from outside can stand in an entry: characters that do not print are escaped, so that no entry can look like two. In text a
traceback follows its entry on lines that begin with a bar; in JSON it is a key. Nothing here decides what is logged; arguments and secrets
never are. Which entries are alerts is in `app/alerts.py`.

A file is written to by all processes at once, an entry at a time, at its end. To rotate: rename it, then send SIGUSR1; until that is
handled, entries go to the file that was renamed, and none is lost or torn.
"""

import contextlib
import json
import logging
import os
import signal
import time
from pathlib import Path
from typing import Any

from app.alerts import ALERTS, name_of
from app.errors import SettingsError

FIELDS = ("task", "connection")
"""What an entry may be about, given as `extra={"task": id}`."""

FORMATS = ("text", "json")

_log = logging.getLogger(__name__)


def configure(role: str, level: str = "info", form: str = "", path: Path | None = None) -> None:
    """Send all entries of this process to this file, or to stderr, under the name of this role; what was set up before is replaced. Without
    a `form` (one of `FORMATS`) it goes on in the form, and to the file, that were set before: so a fork has those of its parent. Raises
    `SettingsError` where the file cannot be opened."""
    form, path = (form, path) if form else _as_before()
    handler = logging.StreamHandler() if path is None else _File(path)
    handler.setFormatter(_Json(role) if form == "json" else _Text(role))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)


class Untold(Exception):
    """Stands in an entry for an exception whose own words may hold what is never logged; says of what type it was."""


def untold(error: BaseException, deep: int = 8) -> BaseException:
    """The exception for an entry (as `exc_info`): its type and its stack, without its words. The words of a function's exception are often
    its arguments. At the level `debug` they are told. Of what led to it, `deep` exceptions are named."""
    if logging.getLogger().isEnabledFor(logging.DEBUG):
        return error
    without = Untold(f"{type(error).__module__}.{type(error).__qualname__}").with_traceback(error.__traceback__)
    if deep:
        without.__cause__ = error.__cause__ and untold(error.__cause__, deep - 1)
        without.__context__ = error.__context__ and untold(error.__context__, deep - 1)
    without.__suppress_context__ = error.__suppress_context__
    return without


def reopen() -> None:
    """Go on in the file that has the name now; nothing happens where the log goes to stderr. To be called at SIGUSR1."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _File):
            handler.reopen()


def reopen_at_signal() -> None:
    """Have `reopen` called at SIGUSR1, from now on, in a process that has no other use for that signal."""
    signal.signal(signal.SIGUSR1, lambda number, frame: reopen())


def one_line(text: str) -> str:
    """The text with everything that does not print (line ends, terminal codes, direction marks, lone surrogates) escaped."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else _escape(character) for character in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _as_before() -> tuple[str, Path | None]:
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, _Formatter):
            return handler.formatter.form, handler.path if isinstance(handler, _File) else None
    return FORMATS[0], None


class _File(logging.Handler):
    """A file of mode 0600. An entry is one write at its end, so that those of several processes do not mix."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        try:
            self._fd = _open(path)
        except OSError as error:
            raise SettingsError(f"--log-file: cannot write to {path}: {error.strerror}") from None

    def emit(self, record: logging.LogRecord) -> None:
        try:
            os.write(self._fd, f"{self.format(record)}\n".encode(errors="backslashreplace"))
        except Exception:  # noqa: BLE001 - the barrier of one entry, as logging has it: said on stderr
            self.handleError(record)

    def reopen(self) -> None:
        """The descriptor keeps its number: whoever writes at this moment has the old file or the new one. Where stdout and stderr are that
        file as well (`start -d`), they go along: what tasks print, and what the interpreter says when it dies."""
        try:
            anew = _open(self.path)
        except OSError as error:
            _log.error("log-file-unavailable: %s: %s", self.path, error.strerror)
            return
        self._move_output(anew)
        os.dup2(anew, self._fd, inheritable=False)
        os.close(anew)

    def _move_output(self, anew: int) -> None:
        """In the background, what is printed goes to the same file, and is not to stay in the old one, which will be removed."""
        before = os.fstat(self._fd)
        for standard in (1, 2):
            with contextlib.suppress(OSError):  # closed
                if os.path.samestat(os.fstat(standard), before):
                    os.dup2(anew, standard)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        super().close()


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY, 0o600)


class _Formatter(logging.Formatter):
    """What the two forms have in common."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"
    form = ""

    @staticmethod
    def about(record: logging.LogRecord) -> dict[str, Any]:
        """The name of the condition, where it has one, whether that is an alert, and the fields that are known."""
        event = name_of(str(record.msg))
        named: dict[str, Any] = {"event": event, "alert": event in ALERTS and record.levelno >= logging.WARNING}
        fields = {name: record.__dict__.get(name) for name in FIELDS}
        return {name: value for name, value in (named | fields).items() if value}


class _Text(_Formatter):
    form = "text"

    def __init__(self, role: str) -> None:
        super().__init__(f"%(asctime)s %(levelname)s {role}[%(process)d]%(about)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (the name is logging's)
        about = {name: value for name, value in self.about(record).items() if name != "event"}  # that begins the message
        record.about = "".join(f" {name}={'yes' if value is True else value}" for name, value in about.items())
        return one_line(super().formatMessage(record))

    def formatException(self, ei: object) -> str:  # noqa: N802
        return _barred(super().formatException(ei))  # type: ignore[arg-type]

    def formatStack(self, stack_info: str) -> str:  # noqa: N802
        return _barred(stack_info)


class _Json(_Formatter):
    form = "json"

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        """ASCII alone, so that nothing in it means anything to a terminal, and no line end can stand in it."""
        head = {"at": self.formatTime(record), "level": record.levelname.lower(), "process": self._role, "pid": record.process}
        entry = {**head, **self.about(record), "message": record.getMessage()}
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        if record.stack_info:
            entry["stack"] = record.stack_info
        return json.dumps(entry, separators=(",", ":"), default=str)


def _barred(text: str) -> str:
    return "\n".join(f"  | {one_line(line.expandtabs())}" for line in text.split("\n"))
