"""What a gateway makes of the tasks that an earlier one has left in the journal, before it lets anybody in; and what it leaves there.

What was not sent waits again. What was sent is looked for at the worker that has it, which goes on with it meanwhile (`app/pool.py`): it
tells what became of it, or that it never came there; only where that worker is gone, the task is interrupted or tried again.
"""

import logging

from app.journal import Journal, Kind, Record, Refused
from app.ledger import Ledger
from app.link import Link
from app.pool import Pool
from app.task import Task

log = logging.getLogger(__name__)

_ALL = 1 << 30


def recover(journal: Journal, ledger: Ledger, pool: Pool) -> None:
    """Take up all that is not over; blocks while it is read."""
    found = journal.unfinished()
    ledger.taken_up = frozenset(task.key for task, _ in found)
    for task, worker in found:
        ledger.live[task.key] = task
        task.cancelling = task.ends_with_client  # whoever submitted it was connected to the process that is gone
        if worker:
            _claim(task, pool.remember(worker))
        elif not task.cancelling or not ledger.cancel_queued(task):
            ledger.restore(task)
    if found:
        sent = sum(bool(worker) for _, worker in found)
        workers = len({worker for _, worker in found} - {""})
        log.info("recovered: %d tasks, of which %d wait and %d were sent to %d workers", len(found), len(found) - sent, sent, workers)


def write_down(journal: Journal, ledger: Ledger) -> None:
    """Put into the journal what was not meant for it: tasks that were to last as long as this process, which ends before they do."""
    records: list[Record] = []
    volatile = [task for task in ledger.live.values() if not task.durable]
    for task in volatile:
        task.durable = True  # what is recorded of it from now on, and is not committed yet, goes there too
        stored = journal.read(task.key, 0, _ALL) if task.kept else None
        if stored is not None:
            records.append((Kind.ACCEPT, task, 0, b"", False, None))
            records += [(Kind.EVENT, task, seq, line, final, None) for seq, line, final in stored.events]
    if volatile:
        log.info("written-down: %d tasks that are not durable are handed over all the same", len(volatile))
        journal.commit(records, _written)


def _written(_refused: Refused) -> None:
    """Nobody waits for it."""


def _claim(task: Task, link: Link) -> None:
    link.tasks[task.label] = task
    task.link = link
    task.sent = True
