"""What workers report, and what becomes of a task whose worker is silent or gone. One barrier a line.

Every event carries (id, attempt): a report of another attempt, or one that may not come in the task's state, is refused and logged.
"""

import logging
import random
from typing import Any

from app import wire
from app.errors import Crashed, HandoffError, Interrupted, TimedOut
from app.labels import id_of
from app.ledger import Ledger
from app.link import Link, LinkConnection
from app.log import untold
from app.messages import EVENTS, FINAL_EVENTS, MAX_DELAY, Event, State, read_event
from app.pool import Pool
from app.task import Task
from app.wire import encode_line

log = logging.getLogger(__name__)

MAX_BACK_OFF = 3600.0


class Reports:
    """Hears the workers for one ledger (a `pool.Listener`)."""

    def __init__(self, ledger: Ledger, pool: Pool) -> None:
        self._ledger = ledger
        self._pool = pool

    def on_line(self, connection: LinkConnection, line: bytes) -> None:
        """One line of a worker; most are events, whose head alone is read."""
        try:
            head = read_event(line)
            if head is not None:
                label, event, seq, attempt = head.groups()
                self._event(connection, label.decode(), EVENTS.get(event), int(seq), int(attempt), line)
            else:
                self._other(connection.link, wire.decode(line))
        except Exception as error:
            log.error("report-failed: from %s", connection.link.name, exc_info=untold(error))

    def on_room(self) -> None:
        """See who can be placed now."""
        self._ledger.turn()

    def on_silent(self, link: Link) -> None:
        """It does not answer: take back what it has not begun. It can only say so once it answers again, or dies."""
        for task in link.tasks.values():
            if task.state is State.DISPATCHED and task.sent and link.connection is not None:
                link.send(encode_line({"id": task.label, "attempt": task.attempt, "recall": True}))

    def on_gone(self, link: Link) -> None:
        """Nobody can be asked any more: what was sent is interrupted or tried again, what was not is placed anew."""
        for task in list(link.tasks.values()):
            self._lost(task, link, f"{link.name} {link.remains.how}")

    def _event(self, connection: LinkConnection, label: str, event: Event | None, seq: int, attempt: int, line: bytes) -> None:
        task = connection.link.tasks.get(label)
        if event is Event.RETURNED:
            if task is not None and task.attempt == attempt:
                self._ledger.put_back(task)
            return
        after = _after(line, task) if event is Event.RETRYING and task is not None else 0.0  # first: a line that is no JSON changes nothing
        if task is None or event is None or task.attempt != attempt or seq <= task.seq or not task.advance(event):
            log.warning("report-refused: event %d of attempt %d: %s", seq, attempt, event and event.value, extra={"task": id_of(label)})
            self._ledger.note(connection)
            return
        if task.owner:
            line = line.replace(label.encode(), task.id.encode(), 1)  # the head alone has it first: nobody else is to see the mark
        final = event in FINAL_EVENTS
        if final:
            self._ledger.release(task)
        if event is Event.PROGRESS:
            task.progress = line
        self._ledger.said(task, seq, line, final, connection)
        if event is Event.RETRYING:
            self._ledger.retry_later(task, after)

    def _other(self, link: Link, message: dict[str, Any]) -> None:
        if "leaving" in message:
            self._pool.leaving(link)
        if "pong" in message:
            link.answered(message)
        if "error" not in message or "id" not in message:
            return
        task = link.tasks.get(message["id"])
        code = message["error"]["code"]
        if task is None or task.attempt != message.get("attempt"):
            log.debug("refusal of a task that is over: %s", code)
        elif code == "busy":
            self._pool.busy(link)
            self._ledger.put_back(task)
        else:
            self._lost(task, link, f"{link.name} does not know it ({code})")

    def _lost(self, task: Task, link: Link, why: str) -> None:
        """Its worker cannot tell what became of it."""
        if not task.sent:
            self._ledger.put_back(task)
            return
        details, overrun = link.remains.details, link.remains.overrun
        if overrun is not None and (overrun.journal, overrun.id, overrun.attempt) == (self._ledger.journal.id, task.label, task.attempt):
            self._end(task, Event.TIMED_OUT, TimedOut(f"over its hard limit of {overrun.limit:g} s; its process was ended", **details))
        elif task.attempts == 1:
            why = f"{why}; it may or may not have taken effect, and is not declared retryable"
            self._end(task, Event.INTERRUPTED, Interrupted(why, **details))
        elif task.attempt >= task.attempts:
            self._end(task, Event.FAILED, Crashed(f"{why}; that was attempt {task.attempt} of {task.attempts}", **details))
        else:
            self._ledger.retry(task, _back_off(task.backoff, task.attempt), Crashed(why, **details))

    def _end(self, task: Task, event: Event, error: HandoffError) -> None:
        log.warning("task-lost: %s is %s: %s", task.function, event.value, error.message, extra={"task": task.id})
        self._ledger.end(task, event, error)


def _after(line: bytes, task: Task) -> float:
    """The seconds that a `retrying` asks for; where a worker of another make gives none that can be used, the task's own back-off."""
    after = wire.decode(line).get("after")
    return float(after) if type(after) in (int, float) and 0 <= after <= MAX_DELAY else _back_off(task.backoff, task.attempt)


def _back_off(base: float, attempt: int) -> float:
    return float(min(base * 2 ** min(attempt - 1, 20), MAX_BACK_OFF) * random.uniform(0.75, 1.25))
