"""The options of a task: how its function is to be run, and what may be done when it fails. Checked when it is registered."""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from app.errors import SettingsError

RunIn = Literal["greenlet", "thread", "process"]


@dataclass(frozen=True, slots=True)
class Options:
    """Raises `ValueError`, saying which option and what it may be, where one cannot be used."""

    run_in: RunIn = "greenlet"
    """Greenlet: plain blocking I/O. Thread: C code that blocks and lets go of the GIL. Process: CPU work, or what may crash or hang."""
    retryable: bool = False
    """Whether it may be run again when the process that ran it died."""
    retry_on: tuple[type[BaseException], ...] = ()
    """Exceptions after which it is run again."""
    attempts: int = 3
    """How often it is run at most, the first time included."""
    backoff: float = 1.0
    """Seconds before the second attempt; doubled for each one after."""
    time_limit: float | None = None
    """Seconds until an exception is raised in it, again and again; in a thread, until it is reported. None: no limit."""
    hard_limit: float | None = None
    """Seconds until its process is ended, where nothing else ends the task: at once where that process is its own, else a second later,
    and after its neighbours where it lets them run. None: no limit."""
    max_running: int | None = None
    """How many of it may run at once; None: as many as there are slots."""
    durable: bool = True
    """Whether it is written to the journal before it is accepted."""

    def __post_init__(self) -> None:
        _require(self.run_in in get_args(RunIn), "run_in", 'must be "greenlet", "thread" or "process"', self.run_in)
        for name in ("retryable", "durable"):
            _require(isinstance(getattr(self, name), bool), name, "must be true or false", getattr(self, name))
        for name in ("time_limit", "hard_limit"):
            limit = getattr(self, name)
            _require(limit is None or (_is_number(limit) and limit > 0), name, "must be a number of seconds above 0, or None", limit)
        _require(_is_number(self.backoff) and self.backoff >= 0, "backoff", "must be a number of seconds, 0 or more", self.backoff)
        _require(_is_count(self.attempts), "attempts", "must be an integer, 1 or more", self.attempts)
        _require(self.max_running is None or _is_count(self.max_running), "max_running", "must be an integer, 1 or more", self.max_running)
        exceptions = isinstance(self.retry_on, tuple) and all(isinstance(e, type) and issubclass(e, BaseException) for e in self.retry_on)
        _require(exceptions, "retry_on", "must be a tuple of exception classes", self.retry_on)
        if self.time_limit is not None and self.hard_limit is not None:
            _require(self.hard_limit >= self.time_limit, "hard_limit", f"must not be below time_limit ({self.time_limit})", self.hard_limit)

    def describe(self) -> dict[str, Any]:
        """All of them, in JSON types; exceptions by name."""
        return {**asdict(self), "retry_on": [exception.__qualname__ for exception in self.retry_on]}


def parse_options(text: str, source: str) -> Options:
    """Options from `run_in=thread;retryable=true;time_limit=60`. Raises `SettingsError`, which names `source`."""
    chosen: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or name not in _PARSERS:
            raise SettingsError(f"{source}: {part!r} is no option; there are {', '.join(f'{option}=…' for option in _PARSERS)}")
        try:
            chosen[name] = _PARSERS[name](value)
        except ValueError as error:
            raise SettingsError(f"{source}: {name}={value}: {error}") from None
    try:
        return Options(**chosen)
    except ValueError as error:
        raise SettingsError(f"{source}: {error}") from None


def _require(true: bool, name: str, rule: str, value: object) -> None:
    if not true:
        raise ValueError(f"{name} {rule}, not {value!r}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError("must be true or false")
    return text.lower() == "true"


_PARSERS: dict[str, Any] = {
    field.name: {"run_in": str, "retryable": _boolean, "durable": _boolean, "attempts": int, "max_running": int}.get(field.name, float)
    for field in fields(Options)
    if field.name != "retry_on"
}
