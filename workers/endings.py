"""What ended a task, as the one event that is said of it: an exception, an interrupt, the death of its process. Nothing is run here."""

import logging
import traceback

from app.errors import Cancelled, Failed, HandoffError, Interrupted, TimedOut
from app.log import untold
from app.messages import Event, State
from workers.attempt import Attempt, back_off, failure, retry_after
from workers.context import TaskCancelled, TimeLimitExceeded, speakable
from workers.process import ProcessDied, RetryElsewhere

log = logging.getLogger(__name__)


def end_with(attempt: Attempt, error: BaseException, tracebacks: bool = False) -> None:
    """End it because of this error; nothing where it is over already. `tracebacks`: tell the client where it was raised."""
    if attempt.state is not State.RUNNING:
        return
    if isinstance(error, TaskCancelled):
        attempt.fail(Event.CANCELLED, Cancelled("cancelled while it ran"))
    elif isinstance(error, TimeLimitExceeded):
        _fail_or_retry(attempt, error, Event.TIMED_OUT, TimedOut(_why_late(attempt, error)))
    elif isinstance(error, RetryElsewhere):
        _fail_or_retry(attempt, error, Event.FAILED, error.error)
    elif isinstance(error, ProcessDied):
        _process_died(attempt, error)
    elif isinstance(error, TimedOut):
        attempt.fail(Event.TIMED_OUT, error)
    elif isinstance(error, HandoffError):
        _fail_or_retry(attempt, error, Event.FAILED, error)
    else:
        log.info("task-failed: %s raised", attempt.function, exc_info=untold(error), extra={"task": attempt.id})
        _fail_or_retry(attempt, error, Event.FAILED, _failure(error, tracebacks))


def over_time_limit(limit: float) -> str:
    """Said of a task that was interrupted at its `time_limit`."""
    return f"over its time limit of {limit:g} s"


def over_hard_limit(limit: float) -> str:
    """Said of a task that was interrupted at its `hard_limit`, or after it."""
    return f"over its hard limit of {limit:g} s"


def _why_late(attempt: Attempt, error: TimeLimitExceeded) -> str:
    if error is attempt.interrupt:
        return str(error)
    limit = attempt.spec.options.time_limit  # it was raised by the task itself
    return "its time is up" if limit is None else over_time_limit(limit)


def _process_died(attempt: Attempt, died: ProcessDied) -> None:
    options = attempt.spec.options
    log.warning("process-died: %s: %s", attempt.function, died.message, extra={"task": attempt.id})
    if not options.retryable:
        attempt.fail(Event.INTERRUPTED, Interrupted(f"{died.message}; it may or may not have taken effect", **died.details))
    elif attempt.may_retry and attempt.attempt < options.attempts:
        attempt.retry(back_off(options.backoff, attempt.attempt), died)
    else:
        attempt.fail(Event.FAILED, died)


def _failure(error: BaseException, tracebacks: bool) -> Failed:
    failed = failure(error)
    if tracebacks:
        failed.details["traceback"] = speakable("".join(traceback.format_exception(error)))
    return failed


def _fail_or_retry(attempt: Attempt, cause: BaseException, event: Event, error: HandoffError) -> None:
    after = retry_after(attempt.spec.options, cause, attempt.attempt) if attempt.may_retry else None
    if after is None:
        attempt.fail(event, error)
    else:
        attempt.retry(after, error)
