"""Who asks over HTTP, and how much one caller may have under way: unfinished tasks, and requests that wait for something.

There is no connection that stands for a caller, as a WebSocket does: its owner does, or where nobody is asked who it is, its address.
Behind a proxy that is the proxy, for all.
"""

from app.errors import Busy, HandoffError
from app.gateway.follow import Follower
from app.gateway.identity import Grant
from app.gateway.peer import Peer
from app.task import Task


class Caller:
    """One owner or address, and a `Watcher` of the tasks that came from there: they take turns with those of others.

    `unfinished` counts them, `held` the requests that wait for something.
    """

    def __init__(self, callers: "Callers", name: str) -> None:
        self._callers = callers
        self.name = name
        self.unfinished = 0
        self.held = 0

    def count(self, task: Task) -> None:
        """One more, until it is over. Call it in the turn of the submit."""
        self.unfinished += 1
        task.watchers.append(self)
        self._callers.keep(self)

    def deliver(self, seq: int, line: bytes, final: bool) -> None:
        """As `Watcher.deliver`."""
        if final:
            self._less()

    def already_known(self) -> None:
        """As `Watcher.already_known`."""
        self._less()

    def refused(self, error: HandoffError) -> None:
        """It was not kept."""
        self._less()

    def _less(self) -> None:
        self.unfinished -= 1
        self._callers.forget(self)


class Callers:
    """The callers that have something under way, by name."""

    def __init__(self, most: int) -> None:
        """`most`: unfinished tasks, and requests that are held, of one caller."""
        self._most = most
        self._callers: dict[str, Caller] = {}
        self._held: dict[Follower, Grant] = {}
        self._closing = False

    def of(self, name: str) -> Caller:
        """Who has this name. One that has nothing under way is forgotten again: ask anew after whatever may have blocked."""
        return self._callers.get(name) or Caller(self, name)

    def keep(self, caller: Caller) -> None:
        """It has something under way."""
        self._callers.setdefault(caller.name, caller)

    def forget(self, caller: Caller) -> None:
        """Forget it, where it has nothing under way."""
        if not caller.unfinished and not caller.held and self._callers.get(caller.name) is caller:
            del self._callers[caller.name]

    def is_full(self, name: str) -> bool:
        """Whether the caller has as many unfinished tasks as it may."""
        return self.of(name).unfinished >= self._most

    def hold(self, name: str, grant: Grant, follower: Follower, peer: Peer) -> Caller:
        """A request of this caller waits from now on: until its peer is gone, its grant is over, or everyone is sent away.

        Raises `Busy`.
        """
        caller = self.of(name)
        if caller.held >= self._most:
            raise Busy(f"{self._most} requests of yours wait already")
        caller.held += 1
        self.keep(caller)
        self._held[follower] = grant
        peer.watch(follower.end)
        if self._closing:
            follower.end()
        return caller

    def let_go(self, caller: Caller, follower: Follower, peer: Peer) -> None:
        """It waits no more."""
        peer.unwatch()
        self._held.pop(follower, None)
        caller.held -= 1
        self.forget(caller)

    def grants(self) -> set[Grant]:
        """By which those wait that do."""
        return set(self._held.values())

    def send_away(self) -> None:
        """Those whose grants are over."""
        for follower, grant in self._held.items():
            if not grant.is_good:
                follower.end()

    def close(self) -> None:
        """Send away all that wait, and whoever comes to wait after them."""
        self._closing = True
        for follower in self._held:
            follower.end()
