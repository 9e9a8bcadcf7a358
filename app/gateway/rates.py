"""How often something may be asked: a token bucket for each owner and each address, in bounded memory. What is counted is said elsewhere.

Each bucket is one number (GCRA): the time at which it would be full again. It holds as much as its rate gives in its unit of time, so that
`100/s` lets 100 through at once, and then 100 a second.
"""

import ipaddress
import time
from typing import Final

from app.errors import RateLimited
from app.kinds import Rate
from app.settings import Settings

MOST_KEPT: Final = 50_000
"""Buckets of a generation. There are two: what was not asked for during a whole one is forgotten, and has a full bucket again."""

_SHORTEST: Final = 0.01
_NOTHING: Final = 1e-6
"""Seconds that are the rounding's."""

_SUBNET: Final = 64


class Limiter:
    """Buckets of one rate. A rate of None has no limit."""

    def __init__(self, rate: Rate | None, most: int = MOST_KEPT) -> None:
        self._interval = rate.seconds / rate.amount if rate is not None else 0.0
        self._depth = rate.seconds - self._interval if rate is not None else 0.0
        self._most = most
        self._full_at: dict[str, float] = {}
        self._older: dict[str, float] = {}

    def wait(self, key: str) -> float:
        """Seconds until there is something in this bucket; 0.0 where there is. Takes nothing."""
        if not self._interval:
            return 0.0
        full_at = self._full_at.get(key) or self._older.get(key, 0.0)
        wait = full_at - time.monotonic() - self._depth
        return wait if wait > _NOTHING else 0.0

    def take(self, key: str) -> float:
        """Take one out of this bucket: 0.0, or where it is empty the seconds until it is not."""
        if not self._interval:
            return 0.0
        if wait := self.wait(key):
            return max(wait, _SHORTEST)
        self._put(key)
        return 0.0

    def wait_in_turn(self, key: str) -> float:
        """Take one out of this bucket in any case: the seconds until it would have been there."""
        wait = self.wait(key)
        if self._interval:
            self._put(key)
        return wait

    def _put(self, key: str) -> None:
        if len(self._full_at) >= self._most and key not in self._full_at:
            self._full_at, self._older = {}, self._full_at
        full_at = self._full_at.get(key) or self._older.get(key, 0.0)
        self._full_at[key] = max(full_at, time.monotonic()) + self._interval


class Limits:
    """Those of one gateway process."""

    def __init__(self, settings: Settings) -> None:
        self.any = bool(settings.rate_owner or settings.rate_address)
        self._owners = Limiter(settings.rate_owner)
        self._addresses = Limiter(settings.rate_address)
        self._failures = Limiter(settings.rate_failures)

    def check(self, owner: str, address: str) -> None:
        """Count one more, of this owner from this address (as `place_of` has it). Raises `RateLimited`."""
        if wait := self._addresses.take(address):
            raise _limited("your address asks too often", wait)
        self.check_owner(owner)

    def check_owner(self, owner: str) -> None:
        """As `check`, where the address was counted already. Nobody in particular has no limit."""
        if owner and (wait := self._owners.take(owner)):
            raise _limited("you ask too often", wait)

    def pace(self, owner: str, address: str) -> float:
        """Count one more, as `check` does; the seconds that it has to wait, where it is one too many."""
        return max(self._addresses.wait_in_turn(address), self._owners.wait_in_turn(owner) if owner else 0.0)

    def failed(self, address: str) -> None:
        """Somebody there has shown a token that is none. Raises `RateLimited` where that has happened too often."""
        if wait := self._failures.take(address):
            raise _limited("too many tokens that are none came from your address", wait)

    def check_failures(self, address: str) -> None:
        """Raises `RateLimited` where another failure would be one too many."""
        if wait := self._failures.wait(address):
            raise _limited("too many tokens that are none came from your address", wait)


def place_of(address: str) -> str:
    """What an address is counted as: itself, or of IPv6 its network of 64 bits, which is what one host is given."""
    if ":" not in address:
        return address
    try:
        found = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    return str(found.ipv4_mapped or ipaddress.IPv6Network((int(found), _SUBNET), strict=False))


def _limited(why: str, wait: float) -> RateLimited:
    return RateLimited(f"{why}; wait for {wait:.2f} s", round(wait, 3))
