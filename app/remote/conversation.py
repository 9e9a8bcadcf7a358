"""What a session says to its gateway and makes of what it hears: this is where tasks survive the loss of a connection. No sockets here.

When a connection opens, each unfinished task says again what it wants: one that the gateway has not answered is submitted under its id, the
others attach after the last `seq` heard. Events come in order and once; where one is missing, what followed is asked for again. The rules
are those of `handoff.js`.
"""

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from app import wire
from app.errors import IdConflict, RemoteError, Unavailable
from app.remote.task import RemoteTask, error_of
from app.task import same_content

PASSING: Final = frozenset(("busy", "rate_limited", "unavailable", "internal"))
"""An attach that is refused with one of these is worth another try."""

TOO_BIG: Final = 1009
"""The close code after a message over the gateway's limit."""


class _Unfinished:
    """A task, and what there is to say of it to the gateway."""

    __slots__ = ("args", "awaits", "cancelling", "frame", "gaps", "idempotent", "task", "timer")

    def __init__(self, task: RemoteTask, frame: bytes = b"", args: bytes = b"", *, gaps: bool = False, idempotent: bool = False) -> None:
        self.task = task
        self.frame = frame  # the submit as it goes out; empty where it is known by its id alone
        self.args = args
        self.gaps = gaps  # whether seq may jump: always where only the final event was asked for
        self.idempotent = idempotent
        self.awaits = ""  # what was asked on this connection and not answered: "submit" or "attach"
        self.cancelling = False
        self.timer: threading.Timer | None = None

    def stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class _Request:
    """Something that has one answer, found under `key`."""

    __slots__ = ("answer", "error", "key", "settled", "text")

    def __init__(self, message: dict[str, Any], key: str) -> None:
        self.text = wire.encode(message)
        self.key = key
        self.answer: dict[str, Any] = {}
        self.error: RemoteError | None = None
        self.settled = False


class Conversation:
    """Of one session. `send` takes a text for the connection that is open; `gap` is as in `Pace`. Any thread may call."""

    def __init__(self, send: Callable[[bytes], None], gap: float) -> None:
        self._send = send
        self._gap = gap
        self._lock = threading.RLock()
        self._answered = threading.Condition(self._lock)
        self._unfinished: dict[str, _Unfinished] = {}
        self._requests: deque[_Request] = deque()  # one is out at a time, so that a refusal without an id is that of the first
        self._is_open = False
        self._ended: Unavailable | None = None

    # What programs want.

    def submit(self, submit: dict[str, Any], idempotent: bool) -> RemoteTask:
        """Begin a task, or find the unfinished one of this id; raises `IdConflict` where that has other content."""
        frame, args = wire.encode(submit), wire.encode(submit.get("args", {}))
        with self._lock:
            known = self._unfinished.get(submit["id"])
            if known is None:
                task = RemoteTask(submit["id"], self._lock, self.cancel, function=submit["function"])
                return self._begin(_Unfinished(task, frame, args, gaps=submit.get("events") == "final", idempotent=idempotent))
            if known.frame and not same_content(known.task.function, known.args, submit["function"], args):
                raise IdConflict(submit["id"])
            return known.task

    def attach(self, task_id: str, after: int) -> RemoteTask:
        """Hear of a task that is known by its id."""
        with self._lock:
            if (known := self._unfinished.get(task_id)) is not None:
                return known.task
            return self._begin(_Unfinished(RemoteTask(task_id, self._lock, self.cancel, seq=after)))

    def cancel(self, task: RemoteTask) -> None:
        """Ask for a task to be cancelled, on every connection until it is over."""
        with self._lock:
            one = self._unfinished.get(task.id)
            if one is not None and one.task is task:
                one.cancelling = True
                self._say({"id": task.id, "cancel": True})

    def release(self, task: RemoteTask) -> None:
        """Hear no more of a task."""
        with self._lock:
            one = self._unfinished.get(task.id)
            if one is not None and one.task is task:
                self._finish(one)

    def ask(self, message: dict[str, Any], key: str, timeout: float | None) -> dict[str, Any]:
        """The gateway's answer, which has this `key`; asked again on the next connection where this one ends before the answer."""
        request = _Request(message, key)
        with self._lock:
            self._check()
            self._requests.append(request)
            if len(self._requests) == 1:
                self._ask_first()
            self._answered.wait_for(lambda: request.settled or self._ended, timeout)
            if not request.settled:
                raise self._ended or Unavailable(f"the gateway has not answered within {timeout:g} s")
        if request.error is not None:
            raise request.error
        return request.answer

    # What the connection tells.

    def opened(self) -> None:
        """A connection is open: everything unanswered is said again."""
        with self._lock:
            self._is_open = True
            for one in list(self._unfinished.values()):
                self._present(one)
            self._ask_first()

    def lost(self, code: int, reason: str) -> None:
        """The connection is over, and there will be another."""
        with self._lock:
            self._is_open = False
            too_big = self._largest_unanswered() if code == TOO_BIG else None
            for one in self._unfinished.values():
                one.stop_timer()
                one.awaits = ""
            if too_big is not None:
                self._refuse(too_big, RemoteError("too_large", reason))

    def ended(self, error: Unavailable) -> None:
        """There will be no other connection."""
        with self._lock:
            self._is_open = False
            self._ended = error
            for one in list(self._unfinished.values()):
                self._finish(one)
                one.task.lose(error)
            self._answered.notify_all()

    def heard(self, message: dict[str, Any]) -> None:
        """A message of the gateway."""
        with self._lock:
            if type(message.get("event")) is str:
                self._event(message)
            elif not self._answer(message) and "error" in message:
                self._refused(message.get("id"), error_of(message["error"]))

    # Under the lock.

    def _check(self) -> None:
        if self._ended is not None:
            raise self._ended

    def _say(self, message: dict[str, Any]) -> None:
        """Nothing is said while it is not open: opening is when everything is said again."""
        if self._is_open:
            self._send(wire.encode(message))

    def _begin(self, one: _Unfinished) -> RemoteTask:
        self._check()
        self._unfinished[one.task.id] = one
        self._present(one)
        return one.task

    def _finish(self, one: _Unfinished) -> None:
        one.stop_timer()
        del self._unfinished[one.task.id]

    def _present(self, one: _Unfinished) -> None:
        if not self._is_open:
            return
        one.awaits = "submit" if one.frame and one.task.seq == 0 else "attach"
        if one.awaits == "submit":
            self._send(one.frame)
        else:
            self._say({"id": one.task.id, "attach": one.task.seq})
        if one.cancelling:
            self._say({"id": one.task.id, "cancel": True})

    def _ask_first(self) -> None:
        if self._requests and self._is_open:
            self._send(self._requests[0].text)

    def _answer(self, message: dict[str, Any]) -> bool:
        """Whether the message was about the first request: its answer, or its refusal (without an id)."""
        request = self._requests[0] if self._requests else None
        refused = "error" in message and "id" not in message
        if request is None or not (refused or request.key in message):
            return False
        request.answer = message
        request.error = error_of(message["error"]) if refused else None
        request.settled = True
        self._requests.popleft()
        self._answered.notify_all()
        self._ask_first()
        return True

    def _event(self, event: dict[str, Any]) -> None:
        one = self._unfinished.get(event.get("id", ""))
        if one is None:
            return  # over, and said so: the rest of a replay
        one.awaits = ""
        if event["seq"] <= one.task.seq:
            return
        if event["seq"] > one.task.seq + 1 and not one.gaps:
            self._missing(one)
            return
        one.stop_timer()
        one.task.take(event)
        if one.task.finished:
            self._finish(one)

    def _missing(self, one: _Unfinished) -> None:
        """Have everything after the gap said again, in order; where that does not fill it, nothing will."""
        if one.timer is None:
            self._again(one, self._gap, gaps=True)
            self._say({"id": one.task.id, "attach": one.task.seq})

    def _again(self, one: _Unfinished, delay: float, *, gaps: bool) -> None:
        one.stop_timer()
        one.timer = threading.Timer(delay, self._present_again, (one, gaps))
        one.timer.daemon = True
        one.timer.start()

    def _present_again(self, one: _Unfinished, gaps: bool) -> None:
        with self._lock:
            if one.timer is threading.current_thread():  # not stopped while it waited for the lock
                one.timer = None
                one.gaps = one.gaps or gaps
                self._present(one)

    def _largest_unanswered(self) -> _Unfinished | None:
        """What a close for a message over the limit was about: sent again, it would close every connection to come."""
        unanswered = (one for one in self._unfinished.values() if one.awaits == "submit")
        return max(unanswered, key=lambda one: len(one.frame), default=None)

    def _refused(self, task_id: Any, error: RemoteError) -> None:
        one = self._unfinished.get(task_id) if type(task_id) is str else None
        if one is None or not one.awaits:
            return  # a cancel that came to nothing: the task's own events say how it goes on
        if one.awaits == "attach" and error.code in PASSING:
            self._again(one, error.details.get("retry_after", 1.0), gaps=False)
        elif one.awaits == "attach" and error.code == "unknown_task" and one.frame and one.idempotent:
            one.task.restart()
            self._present(one)
        else:
            self._refuse(one, error)

    def _refuse(self, one: _Unfinished, error: RemoteError) -> None:
        self._finish(one)
        one.task.refuse(error)
