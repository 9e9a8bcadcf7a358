"""The kinds of settings: how a text is read as a number, a size, an address and so on, and how to say what would be one.

Which settings there are is in `app/settings.py`. A reader raises `ValueError`, `KeyError` or `OverflowError` for what it cannot read.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from app import log
from app.address import Address

KIB, MIB = 1024, 1024 * 1024
MOST_PROCESSES = 1024
SHORTEST_LINE = 4 * KIB
"""A gateway's own lines to its workers must fit."""

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^A-Z/?#@*\s]+")  # as browsers write it; `null` is that of any sandboxed page
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")  # it becomes the beginning of file names
DURABILITIES = ("full", "normal", "off")


class Kind(NamedTuple):
    """How the text of a setting is read, and how to say what is wanted."""

    read: Callable[[str], Any]
    wanted: str
    metavar: str


def _whole(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 2**53:
        raise ValueError
    return number


def _at_least_one(text: str) -> int:
    return _whole(text) or _nothing()


def _few(text: str) -> int:
    number = _at_least_one(text)
    return number if number <= MOST_PROCESSES else _nothing()


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 1e8:  # NaN falls out as well
        raise ValueError
    return number


def _some_seconds(text: str) -> float:
    return _seconds(text) or _nothing()


def _nothing() -> NoReturn:
    raise ValueError


def _size(text: str) -> int:
    units = {"kib": KIB, "mib": MIB}
    digits, factor = (text[:-3], units[text[-3:].lower()]) if text[-3:].lower() in units else (text, 1)
    return _at_least_one(digits.strip()) * factor


def _size_or_none(text: str) -> int:
    return 0 if text.strip() == "0" else _size(text)


def _line_size(text: str) -> int:
    size = _size(text)
    return size if size >= SHORTEST_LINE else _nothing()


def _switch(text: str) -> bool:
    return {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}[text.lower()]


def _level(text: str) -> str:
    if text.lower() not in ("debug", "info", "warning", "error"):
        raise ValueError
    return text.lower()


class Rate(NamedTuple):
    """So many in so many seconds."""

    amount: int
    seconds: float


def _rate(text: str) -> Rate | None:
    if text.strip() == "0":
        return None
    amount, _, unit = text.partition("/")
    return Rate(_at_least_one(amount.strip()), {"s": 1.0, "min": 60.0, "h": 3600.0}[unit.strip()])


def _durability(text: str) -> str:
    if text.lower() not in DURABILITIES:
        raise ValueError
    return text.lower()


def _text(text: str) -> str:
    if any(not character.isprintable() for character in text):
        raise ValueError
    return text


def _log_format(text: str) -> str:
    if text.lower() not in log.FORMATS:
        raise ValueError
    return text.lower()


def _path_or_none(text: str) -> Path | None:
    return _path(text) if text else None


def _umask(text: str) -> int:
    mask = int(text, 8)
    return mask if 0 <= mask <= 0o777 else _nothing()


def _path(text: str) -> Path:
    if not text or "\0" in text:
        raise ValueError
    return Path(text).absolute()  # a task that changes its directory must not take ours along


def _elsewhere(text: str) -> Address:
    address = Address.parse(text)
    return address if address.fd < 0 else _nothing()


def _plain_listener(text: str) -> Address:
    address = Address.parse(text)
    return address if not address.tls else _nothing()


def _origin(text: str) -> str:
    origin = _text(text).rstrip("/")
    return origin if _ORIGIN.fullmatch(origin) else _nothing()


def _name(text: str) -> str:
    return text if not text or _NAME.fullmatch(text) else _nothing()


ADDRESS = Kind(_elsewhere, "an address", "ADDRESS")
LISTENER = Kind(Address.parse, "an address", "ADDRESS")
PLAIN_LISTENER = Kind(_plain_listener, "an address without tls://", "ADDRESS")
NAME = Kind(_name, "up to 64 of A-Z, a-z, 0-9, _, - and .", "NAME")
ORIGIN = Kind(_origin, "an origin as browsers say it: https://example.org, in lower case, with a port or without", "ORIGIN")
COUNT = Kind(_whole, "a whole number, 0 or more", "N")
FEW = Kind(_few, f"a whole number from 1 to {MOST_PROCESSES}", "N")
POSITIVE = Kind(_at_least_one, "a whole number, 1 or more", "N")
SECONDS = Kind(_seconds, "a number of seconds, 0 or more", "SECONDS")
SOME_SECONDS = Kind(_some_seconds, "a number of seconds above 0", "SECONDS")
LINE_SIZE = Kind(_line_size, "4KiB or more", "BYTES")
SIZE = Kind(_size, "a number of bytes, or one with KiB or MiB", "BYTES")
SIZE_OR_NONE = Kind(_size_or_none, "0, or a number of bytes, or one with KiB or MiB", "BYTES")
SWITCH = Kind(_switch, "yes or no", "YES|NO")
DURABILITY = Kind(_durability, "full, normal or off", "LEVEL")
LOG_FORMAT = Kind(_log_format, "text or json", "FORMAT")
LEVEL = Kind(_level, "debug, info, warning or error", "LEVEL")
TEXT = Kind(_text, "text without control characters", "TEXT")
RATE = Kind(_rate, "0, or a number of times in s, min or h, as 100/s", "RATE")
PATH = Kind(_path, "a path", "PATH")
FILE = Kind(_path_or_none, "a path, or nothing", "PATH")
UMASK = Kind(_umask, "an octal number up to 777", "MASK")
