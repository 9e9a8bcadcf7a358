"""What can go wrong, as one tree; each error has the `code` that it carries on the wire.

    HandoffError                     internal
    ├── Refusal                      nothing was accepted; the sender can put it right
    │   ├── BadRequest               bad_request
    │   ├── BadArguments             bad_arguments
    │   ├── UnknownFunction          unknown_function
    │   ├── UnknownTask              unknown_task
    │   ├── IdConflict               id_conflict
    │   ├── TooLarge                 too_large
    │   ├── Busy                     busy
    │   ├── DiskFull                 disk_full
    │   ├── Unauthorized             unauthorized
    │   └── Forbidden                forbidden
    ├── Ending                       why an accepted task did not succeed
    │   ├── Failed                   failed
    │   ├── Crashed                  crashed
    │   ├── TimedOut                 timed_out
    │   ├── Cancelled                cancelled
    │   └── Interrupted              interrupted
    ├── Unavailable                  unavailable
    ├── RemoteError                  whatever code the other side gave
    └── SettingsError                a flag, variable or key that cannot be used (never on the wire)

What to do about an error is said in its message, to whoever sent the request. Nothing here logs or sends.
"""

from typing import Any


class HandoffError(Exception):
    """Something of ours went wrong. `details` go into the wire's error object beside `code` and `message`."""

    code = "internal"

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details

    def as_wire(self) -> dict[str, Any]:
        """The error object that stands under `"error"` in a line or a frame."""
        return {"code": self.code, "message": self.message, **self.details}


class Refusal(HandoffError):
    """The request was not accepted, and nothing happened because of it."""

    code = "bad_request"


class BadRequest(Refusal):
    """The line or frame is not a request of this protocol."""


class BadArguments(Refusal):
    """The function exists, but cannot be called with these arguments."""

    code = "bad_arguments"


class UnknownFunction(Refusal):
    """No worker has a task of this name."""

    code = "unknown_function"

    def __init__(self, name: str) -> None:
        super().__init__(f'no function {name[:100]!r} here; {{"describe": true}} lists those there are')


class UnknownTask(Refusal):
    """No task of this id, or it belongs to somebody else, or it was forgotten after its retention."""

    code = "unknown_task"

    def __init__(self, task_id: str) -> None:
        super().__init__(f"no task {task_id!r} of yours is known; submit it (the same id will do)")


class IdConflict(Refusal):
    """The id is taken by a task with another function or other arguments."""

    code = "id_conflict"

    def __init__(self, task_id: str) -> None:
        super().__init__(f"id {task_id!r} is taken by another task; choose a new id")


class TooLarge(Refusal):
    """A line, message or result is past its limit, in bytes."""

    code = "too_large"

    def __init__(self, what: str, limit: int) -> None:
        super().__init__(f"{what} is larger than {limit} bytes; send less, or raise the limit")


class Busy(Refusal):
    """A queue or all slots are taken; `retry_after` is in seconds."""

    code = "busy"

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message, retry_after=retry_after)


class DiskFull(Refusal):
    """Nothing more can be kept: the journal's disk is full. `retry_after` is in seconds."""

    code = "disk_full"

    def __init__(self) -> None:
        super().__init__("the disk of the journal is full, so nothing was accepted; send it again later, with the same id", retry_after=5.0)


class Unauthorized(Refusal):
    """Who asks has not shown that it may: no proof, or a wrong one."""

    code = "unauthorized"


class Forbidden(Refusal):
    """The sender may not do this here."""

    code = "forbidden"


class Ending(HandoffError):
    """Why a task that was accepted did not succeed; stands in its final event."""

    code = "failed"


class Failed(Ending):
    """The function raised."""


class Crashed(Ending):
    """The process that ran the task died, and no attempts are left."""

    code = "crashed"


class TimedOut(Ending):
    """The task ran into its time limit."""

    code = "timed_out"


class Cancelled(Ending):
    """The task was cancelled, before or while it ran."""

    code = "cancelled"


class Interrupted(Ending):
    """The task was handed to a worker that is gone: it may or may not have taken effect."""

    code = "interrupted"


class Unavailable(HandoffError):
    """Nobody there to do it: no worker, no gateway, or the connection was lost."""

    code = "unavailable"


class RemoteError(HandoffError):
    """The other side answered with an error; `code` is the one that it gave."""

    def __init__(self, code: str, message: str, **details: Any) -> None:
        super().__init__(message, **details)
        self.code = code


class SettingsError(HandoffError):
    """A setting cannot be used; the message names it and where it came from."""
