"""How many tasks run at once in one worker process, and who waits for a place. Counting only; what runs in a slot is not known here.

Two kinds: slots for tasks in greenlets and threads, and slots for tasks in processes of their own, counted apart. A gateway has done its
own counting of functions over all its workers; for those who come to the Text port directly it is done here, for this process alone.
"""

from collections import deque

from gevent.event import Event

from app.fairness import bulkhead
from workers.registry import Function


class Slots:
    """The slots of this process. `most` and `most_processes` are how many there are of each kind."""

    def __init__(self, most: int, most_processes: int) -> None:
        self.most = most
        self.most_processes = most_processes
        self._used = 0
        self._used_processes = 0
        self._running: dict[str, int] = {}
        self._waiting: dict[str, deque[tuple[Function, Event]]] = {}
        self._room: Event | None = None

    @property
    def used(self) -> int:
        """How many tasks run, of either kind."""
        return self._used + self._used_processes

    @property
    def full(self) -> bool:
        """Whether every slot for greenlets and threads is taken."""
        return self._used >= self.most

    def take(self, spec: Function) -> bool:
        """Take a slot of the function's kind; False where none is free."""
        if spec.options.run_in == "process":
            if self._used_processes >= self.most_processes:
                return False
            self._used_processes += 1
        else:
            if self._used >= self.most:
                return False
            self._used += 1
        self._running[spec.name] = self._running.get(spec.name, 0) + 1
        return True

    def take_directly(self, spec: Function) -> bool:
        """As `take`, for a caller that no gateway counts: the function's own bound holds too, and by default it leaves a tenth free."""
        return self._running.get(spec.name, 0) < self._bound(spec) and self.take(spec)

    def wait(self, spec: Function) -> None:
        """As `take_directly`, blocking this greenlet until there is one."""
        if spec.name not in self._waiting and self.take_directly(spec):
            return
        served = Event()
        self._waiting.setdefault(spec.name, deque()).append((spec, served))
        served.wait()

    def wait_room(self, timeout: float) -> None:
        """Block this greenlet until not every slot for greenlets and threads is taken, at most `timeout` seconds. Takes none."""
        if self.full:
            self._room = Event()
            self._room.wait(timeout)
            self._room = None

    def give(self, spec: Function) -> None:
        """Give the slot back; whoever waits longest for one gets it, functions in turn."""
        if spec.options.run_in == "process":
            self._used_processes -= 1
        else:
            self._used -= 1
        self._running[spec.name] -= 1
        if self._waiting:
            self._serve()
        if self._room is not None and not self.full:
            self._room.set()

    def _serve(self) -> None:
        for name in list(self._waiting):
            waiting = self._waiting[name]
            spec, served = waiting[0]
            if not self.take_directly(spec):
                continue
            waiting.popleft()
            del self._waiting[name]
            if waiting:
                self._waiting[name] = waiting  # at the end: another function's turn is next
            served.set()
            return

    def _bound(self, spec: Function) -> int:
        if spec.options.max_running is not None:
            return spec.options.max_running
        return bulkhead(self.most) if spec.options.run_in != "process" else self.most_processes
