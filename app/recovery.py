"""What a gateway makes of the tasks that an earlier one has left in the journal, before it lets anybody in.

What was not sent waits again. What was sent is looked for at the worker that has it, which goes on with it meanwhile (`app/pool.py`): it
tells what became of it, or that it never came there; only where that worker is gone, the task is interrupted or tried again.
"""

import logging

from app.journal import Journal
from app.ledger import Ledger
from app.link import Link
from app.pool import Pool
from app.task import Task

log = logging.getLogger(__name__)


def recover(journal: Journal, ledger: Ledger, pool: Pool) -> None:
    """Take up all that is not over; blocks while it is read."""
    found = journal.unfinished()
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


def _claim(task: Task, link: Link) -> None:
    link.tasks[task.label] = task
    task.link = link
    task.sent = True
