"""Who somebody is, and what that one may do. How it is found out is in `app/gateway/authority.py`.

An `Identity` is a plain value, which one's own authentication makes too. A `Grant` is what a connection or a request holds for as long as
it goes on: the same object for all who have shown the same token, so that whoever takes it back takes it back everywhere at once.
"""

import fnmatch
import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from app.errors import Forbidden, Unauthorized

MOST_SUBJECT: Final = 200
EVERYTHING: Final = ("*",)


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody. `subject` owns the tasks: 1 to 200 printable characters without spaces. `functions` are names, or patterns with `*`, `?`
    and `[…]`. `expires` is in seconds since 1970, None for never. `operator`: sees the figures of the whole gateway, and what its workers
    run; everyone else sees only what is its own. Raises `ValueError` for what is none."""

    subject: str
    functions: Sequence[str] = EVERYTHING
    expires: float | None = None
    operator: bool = False

    def __post_init__(self) -> None:
        subject, functions, expires = self.subject, self.functions, self.expires
        if type(subject) is not str or not 0 < len(subject) <= MOST_SUBJECT or not subject.isprintable() or " " in subject:
            raise ValueError(f"a subject wants 1 to {MOST_SUBJECT} printable characters without spaces")
        if isinstance(functions, str) or not all(isinstance(function, str) for function in functions):
            raise ValueError('functions want a list of names or patterns, as ["send_mail", "report_*"]')
        if expires is not None and (type(expires) not in (int, float) or not math.isfinite(expires)):
            raise ValueError("the end wants a time, in seconds since 1970")
        if type(self.operator) is not bool:
            raise ValueError("operator wants true or false")


class Grant:
    """What somebody may do, until it ends. Its subject never changes; what it may call and its end may."""

    __slots__ = ("_expires", "_pattern", "operator", "revoked", "subject")

    def __init__(self, subject: str) -> None:
        """Of whoever owns the tasks of this subject, with nothing else allowed yet."""
        self.subject = subject
        self.revoked = False
        self.operator = False
        self._expires = math.inf
        self._pattern: re.Pattern[str] | None = re.compile(r"(?!)")

    @classmethod
    def of(cls, identity: Identity) -> "Grant":
        """All that an identity may do."""
        grant = cls(identity.subject)
        grant.follow(identity)
        return grant

    @classmethod
    def of_everyone(cls) -> "Grant":
        """Where nobody is asked who it is: one owner, the empty one, who may do everything."""
        grant = cls("")
        grant.operator = True
        grant._pattern = None
        return grant

    def follow(self, identity: Identity) -> None:
        """From now on it may do what this identity of the same subject may."""
        self.operator = identity.operator
        self._expires = math.inf if identity.expires is None else identity.expires
        everything = "*" in identity.functions
        self._pattern = None if everything else re.compile("|".join(map(fnmatch.translate, identity.functions)) or r"(?!)")

    def may_call(self, function: str) -> bool:
        """Whether a function of this name, should there be one, is among those that are allowed."""
        return self._pattern is None or self._pattern.match(function) is not None

    def check_call(self, function: str) -> None:
        """Raises `Forbidden`; whether there is such a function is not said."""
        if not self.may_call(function):
            raise Forbidden(f"{function[:100]!r} is not among the functions that you may call; describe lists those")

    def shown(self, catalogue: dict[str, Any]) -> dict[str, Any]:
        """Of a catalogue what may be called."""
        if self._pattern is None:
            return catalogue
        return {**catalogue, "functions": [entry for entry in catalogue["functions"] if self.may_call(entry["name"])]}

    @property
    def is_good(self) -> bool:
        """Whether it has neither been taken back nor ended."""
        return not self.revoked and (self._expires == math.inf or time.time() < self._expires)

    def check(self) -> None:
        """Raises `Unauthorized` where it is over."""
        if not self.is_good:
            raise Unauthorized("the token is not good any more; get a new one")
