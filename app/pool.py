"""The workers that a gateway knows: where they are looked for, and when one is given up.

Local workers are met in the run directory, others at the addresses of `--pool`. Whether they live is asked in `app/pulse.py`; which of them
a task goes to is in `app/places.py`; what a task becomes when its worker is gone is in `app/reports.py`.
"""

import logging
import time
from functools import partial
from typing import Any, Protocol

import gevent
from gevent.event import Event as Signal

from app.address import Address
from app.client import TaskConnection
from app.ends import Remains
from app.entrance import Credentials
from app.errors import HandoffError, Unavailable
from app.link import BUSY_FOR, Link, LinkConnection, label_of
from app.places import Places
from app.pulse import Pulse
from app.rundir import RunDirectory
from app.turn import Turn

log = logging.getLogger(__name__)

LOOK_EVERY = 0.05
"""Seconds between two looks into the run directory."""

LEASE = 15.0
"""Seconds of silence after which a worker is given up, with what it runs; one of this machine not before its hang limit has ended it."""

_BACK_OFF, _LOOK_SOON, _LOOK_AGAIN = (0.1, 5.0), 1.0, 30.0


class Listener(Protocol):
    """Who is told what happens to the links."""

    def on_line(self, connection: LinkConnection, line: bytes) -> None:
        """A line of a worker."""

    def on_room(self) -> None:
        """There may be places that there were not."""

    def on_silent(self, link: Link) -> None:
        """It does not answer; what it has not begun is better off elsewhere."""

    def on_gone(self, link: Link) -> None:
        """It is given up."""


class Pool:
    """All links, by instance."""

    def __init__(
        self, journal: str, rundir: RunDirectory | None, addresses: tuple[Address, ...], hang_limit: float, turn: Turn, loop: Any
    ) -> None:
        self._journal = journal
        self._hang_limit = hang_limit
        self._rundir, self._addresses = rundir, addresses
        self._turn, self._loop = turn, loop
        self._listener: Listener | None = None
        self._credentials: Credentials | None = None
        self._greenlets: list[Any] = []
        self._connecting: set[str] = set()
        self.links: dict[str, Link] = {}
        self.places, self.met, self.reconnects = Places(), Signal(), 0

    def start(self, listener: Listener, credentials: Credentials | None = None) -> None:
        """Look for workers from now on; `credentials` are for those elsewhere."""
        self._listener, self._credentials = listener, credentials
        pulse = Pulse(self.links, LEASE, self._hang_limit, self._silence_changed, partial(self._give_up, silent=True))
        self._greenlets.append(gevent.spawn(pulse.run))
        for link in self.links.values():
            self._greenlets.append(gevent.spawn(self._find_again, link))
        if self._rundir is not None:
            self._greenlets.append(gevent.spawn(self._look, self._rundir))
        self._greenlets += [gevent.spawn(self._dial, address) for address in self._addresses]

    def remember(self, label: str) -> Link:
        """A worker that an earlier process sent tasks to: it is looked for, and given up where it is not found."""
        link = self.links.get(label.partition(" ")[0])
        if link is None:
            link = Link(label, local=self._rundir is not None)
            link.lost_at = time.monotonic()
            self.links[link.instance] = link
        return link

    def stop(self) -> None:
        """Let go of every worker; what they run goes on there."""
        gevent.killall(self._greenlets)
        for link in self.links.values():
            if link.connection is not None:
                link.connection.close()
        self.links.clear()  # nobody is to be found again

    def met_links(self) -> list[Link]:
        """Those that were met and not given up, by name."""
        return sorted((link for link in self.links.values() if not link.remembered), key=lambda link: (link.name, link.instance))

    def busy(self, link: Link) -> None:
        """It had no slot after all; leave it alone for a moment."""
        link.resting = True
        self._loop.timer(BUSY_FOR).start(self._rested, link)

    def leaving(self, link: Link) -> None:
        """It takes nothing more; what it has it still reports."""
        log.info("link-leaving: %s, with %d tasks", link.name, len(link.tasks))
        link.leave()
        self._count()

    def catalogue(self) -> list[dict[str, Any]]:
        """Every function that some link offers, by name."""
        entries = {entry["name"]: entry for link in self.links.values() for entry in link.catalogue}
        return [entries[name] for name in sorted(entries)]

    def _rested(self, link: Link) -> None:
        link.resting = False
        self._room()

    def _room(self) -> None:
        assert self._listener is not None
        self._listener.on_room()

    def _count(self, met: Link | None = None) -> None:
        self.places.count([link for link in self.links.values() if link.can_be_sent_to])
        if met is not None:
            self.places.take_back(met)  # before its free slots are given away
        self._room()

    def _silence_changed(self, link: Link) -> None:
        assert self._listener is not None
        self._count()
        if link.stale:
            self._listener.on_silent(link)

    # Local workers: a socket each in the run directory.

    def _look(self, rundir: RunDirectory) -> None:
        refused: dict[str, int] = {}
        while True:
            gevent.sleep(LOOK_EVERY)
            try:
                instances = rundir.instances()
            except OSError as error:  # out of file descriptors, most likely: there will be some again
                log.error("look-failed: %s", error)
                continue
            for instance in instances - self.links.keys() - self._connecting:
                self._connecting.add(instance)
                gevent.spawn(self._meet_local, rundir, instance, refused)

    def _meet_local(self, rundir: RunDirectory, instance: str, refused: dict[str, int]) -> None:
        address = rundir.address(instance)
        try:
            link = self._meet(address, local=True)
        except HandoffError as error:
            refused[instance] = refused.get(instance, 0) + _is_refused(error)
            if refused[instance] > 1 / LOOK_EVERY:  # nobody has answered there for a second: it was killed
                rundir.forget(instance)
                del refused[instance]
            return
        finally:
            self._connecting.discard(instance)
        if link is not None:
            self._keep(link, address)

    def _find_again(self, link: Link) -> None:
        """One that is remembered: a local worker is there, or it is gone; one elsewhere may be met at any of the addresses."""
        if self._rundir is not None:
            self._keep(link, self._rundir.address(link.instance))
            return
        gevent.sleep(LEASE)
        if link.remembered:
            link.remains = Remains(f"was not found again within {LEASE:g} s")
            self._give_up(link, silent=True)

    def _keep(self, link: Link, address: Address) -> None:
        """Read what it says, and find it again when its connection is lost, until it is given up."""
        while self.links.get(link.instance) is link:
            self._read(link)
            self._come_back(link, address)

    # Workers elsewhere: as many processes behind one address as it says, each met by chance.

    def _dial(self, address: Address) -> None:
        """Open connections until every process behind the address has been met, then look again now and then."""
        wait, tries, siblings = _BACK_OFF[0], 0, 1
        while True:
            try:
                link = self._meet(address, local=False)
            except HandoffError as error:
                log.warning("worker-unreachable: %s: %s", address, error.message)
                gevent.sleep(wait)
                wait = min(wait * 2, _BACK_OFF[1])
                continue
            wait, tries = _BACK_OFF[0], tries + 1
            if link is not None:
                tries, siblings = 0, link.siblings
                gevent.spawn(self._keep, link, address)
            if tries > 2 * siblings:
                tries = 0
                self._rest(address, siblings)

    def _rest(self, address: Address, siblings: int) -> None:
        """Block until one of them is missed, or it is time to look whether there are more."""
        until = time.monotonic() + _LOOK_AGAIN
        gevent.sleep(_LOOK_SOON)
        while self._met_at(address) >= siblings and time.monotonic() < until:
            gevent.sleep(_LOOK_SOON)

    def _met_at(self, address: Address) -> int:
        return sum(link.address == address and link.connection is not None and not link.leaving for link in self.links.values())

    def _meet(self, address: Address, local: bool) -> Link | None:
        """Connect and ask who is there; None where that is somebody already met. Raises `Unavailable`."""
        connection = TaskConnection(address, credentials=None if local else self._credentials)
        try:
            description = connection.request({"describe": True})["describe"]
            instance = description["instance"]
            link = self.links.get(instance)
            if link is not None and link.connection is not None:
                connection.close()
                return None
            met = link is None or (link.remembered and not local)
            self.reconnects += link is not None and not link.remembered
            link = link or Link(label_of(description), local)
            link.describe(description)
        except (KeyError, TypeError) as error:
            connection.close()
            raise Unavailable(f"{address} does not answer as a worker does") from error
        except HandoffError:
            connection.close()
            raise
        self.links[link.instance] = link
        link.address = address
        link.connection = LinkConnection(link, connection, self._turn, self._loop)
        link.stale, link.asked_at = False, 0.0
        link.claim(self._journal)
        log.info("link-up: %s at %s", link.name, address)
        self._count(link)
        if not link.leaving:  # else what can be called is not known yet
            self.met.set()
        return link if met else None

    def _read(self, link: Link) -> None:
        assert self._listener is not None
        if link.connection is not None:
            link.connection.read(self._listener.on_line)
            link.connection = None
            link.lost_at = time.monotonic()
            self._count()

    def _come_back(self, link: Link, address: Address) -> None:
        """Find the process again after its connection was lost; give it up where nobody is there, or not in time."""
        wait = _BACK_OFF[0]
        while self.links.get(link.instance) is link:
            nobody = self._nobody_there(address, link.local)
            if link.connection is not None:
                return
            if nobody or time.monotonic() - link.lost_at >= LEASE:
                self._give_up(link)
                return
            gevent.sleep(wait)
            wait = min(wait * 2, 1.0)

    def _nobody_there(self, address: Address, local: bool) -> bool:
        """Meet whoever answers at the address; whether nobody listens there at all."""
        try:
            link = self._meet(address, local)
        except HandoffError as error:
            return _is_refused(error)
        if link is not None:  # somebody new, in the place of the one that was lost, perhaps
            gevent.spawn(self._keep, link, address)
        return False

    def _give_up(self, link: Link, silent: bool = False) -> None:
        if self.links.get(link.instance) is not link:
            return
        if link.local and self._rundir is not None and not silent:
            link.look_back(self._rundir)
            if self.links.get(link.instance) is not link:
                return
        level = logging.WARNING if link.tasks else logging.INFO
        log.log(level, "link-gone: %s %s, with %d tasks", link.name, link.remains.how, len(link.tasks))
        del self.links[link.instance]
        if link.connection is not None:
            link.connection.close()
            link.connection = None
        self._count()
        assert self._listener is not None
        self._listener.on_gone(link)


def _is_refused(error: HandoffError) -> bool:
    """Whether nobody listens there; a process that is stopped, or slow, still does."""
    return isinstance(error.__cause__, (ConnectionRefusedError, FileNotFoundError))
