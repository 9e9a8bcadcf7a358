"""Logging, set up once a process: one line an entry on stderr, with the time, the level, the role and pid, and what the entry is about.

    2026-05-01T12:00:00.123Z INFO worker-2[4711] task=6f1c connection=c-9: started

What came from outside can stand in an entry: characters that do not print are escaped, so that no entry can look like two. A traceback
follows its entry on lines that begin with a bar. Nothing here decides what is logged; arguments and secrets never are.
"""

import logging
import time

FIELDS = ("task", "connection")
"""What an entry may be about, given as `extra={"task": id}`."""


def configure(role: str, level: str = "info") -> None:
    """Send all entries of this process to stderr, under the name of this role; what was set up before is replaced."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter(role))
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


def one_line(text: str) -> str:
    """The text with everything that does not print (line ends, terminal codes, direction marks, lone surrogates) escaped."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else _escape(character) for character in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


class _Formatter(logging.Formatter):
    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self, role: str) -> None:
        super().__init__(f"%(asctime)s %(levelname)s {role}[%(process)d]%(about)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (the name is logging's)
        record.about = "".join(f" {name}={record.__dict__[name]}" for name in FIELDS if record.__dict__.get(name))
        return one_line(super().formatMessage(record))

    def formatException(self, ei: object) -> str:  # noqa: N802
        return _barred(super().formatException(ei))  # type: ignore[arg-type]

    def formatStack(self, stack_info: str) -> str:  # noqa: N802
        return _barred(stack_info)


def _barred(text: str) -> str:
    return "\n".join(f"  | {one_line(line.expandtabs())}" for line in text.split("\n"))
