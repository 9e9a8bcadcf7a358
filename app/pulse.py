"""Signs of life of the workers that are connected: asked for, and judged. What follows from a silence is the pool's to say."""

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gevent

from app.ends import Remains
from app.link import Link

log = logging.getLogger(__name__)

_CHECK_EVERY = 0.1
_IDLE_PING_EVERY = 5.0
_BEYOND_HANGING = 5.0


class Pulse:
    """Watches `links`, by instance. `changed` is told of a link that does not answer, or answers again; `give_up` of one that has not
    answered for `lease` seconds. One of this machine that runs is ended by its `hang_limit`, and then it is known how, and where it hung:
    it is given up only after that."""

    def __init__(
        self,
        links: Mapping[str, Link],
        lease: float,
        hang_limit: float,
        changed: Callable[[Link], None],
        give_up: Callable[[Link], None],
    ) -> None:
        self._links = links
        self._lease = lease
        self._lease_here = max(lease, hang_limit + _BEYOND_HANGING)
        self._changed = changed
        self._give_up = give_up

    def run(self) -> Any:
        """Ask those that have tasks all the time, the others now and then; judge only what this process had the time to hear. Blocks for
        ever."""
        last = asked_idle_at = time.monotonic()
        while True:
            gevent.sleep(_CHECK_EVERY)
            now = time.monotonic()
            on_time, last = now - last < 2 * _CHECK_EVERY, now
            idle_too = now - asked_idle_at > _IDLE_PING_EVERY
            if idle_too:
                asked_idle_at = now
            for link in list(self._links.values()):
                if on_time and link.connection is not None:
                    self._check(link, now)
                if not link.asked_at and (link.tasks or idle_too):
                    link.ask()

    def _check(self, link: Link, now: float) -> None:
        if link.check(now):
            if link.stale:
                log.warning("link-silent: %s", link.name)
            else:
                log.info("link-answers: %s", link.name)
            self._changed(link)
        silent = now - link.asked_at if link.asked_at else 0.0
        if silent > self._lease and (silent > self._lease_here or not link.local or _is_stopped(link.pid)):
            link.remains = Remains(f"has not answered for {silent:.0f} s")
            self._give_up(link)


def _is_stopped(pid: int) -> bool:
    """Whether it does not run at all, by SIGSTOP or a debugger (proc(5), stat); one that cannot be looked at is taken for that."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[0] in "Tt"
    except OSError:
        return True
