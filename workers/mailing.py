"""A mailing: one letter to many, a mail each; one bad address stops nobody, and what is refused for now is tried again.

Goes round all recipients, waits, and goes round those whom the server refused for now (a greylist, a limit), until none is left or
`ROUNDS` are over. Nobody is sent a second mail: tried again are those alone of whom the server said that it has not taken theirs.
How one mail is sent is in `workers/mailer.py`.
"""

import time
from collections.abc import Sequence
from typing import Any

from app.errors import Failed, HandoffError
from workers.attempt import back_off
from workers.context import CURRENT, TimeLimitExceeded, progress
from workers.letter import Letter, Mailbox
from workers.mailer import Mailer
from workers.smtp import NoConnection, Refused, Uncertain

ROUNDS = 6
BACK_OFF = 10.0
"""Seconds before the second round, doubled for each one after: with six rounds about five minutes, which is what greylists want."""
MOST_NAMED = 50
"""Recipients that a report names."""
LONGEST_MESSAGE = 200

Unsent = tuple[str, HandoffError]
"""An address, and why nothing was sent to it."""


class Mailing:
    """Sends once; then `report` tells what became of it. `unread`: addresses that could not be read, and why; they are reported with the
    others that get nothing."""

    def __init__(self, mailer: Mailer, letter: Letter, recipients: Sequence[Mailbox], unread: Sequence[Unsent] = ()) -> None:
        self._mailer = mailer
        self._letter = letter
        self._total = len(recipients) + len(unread)
        self._waiting: list[tuple[Mailbox, Failed | None]] = [(recipient, None) for recipient in recipients]
        self._sent = 0
        self._uncertain = 0
        self._failed: list[Unsent] = list(unread)

    def send(self) -> None:
        """Block until each mail was taken or given up. A time limit that ends a wait ends the mailing.

        Raises `NoConnection` where the server cannot be had and no mail can have been taken, else `Failed` where none was.
        """
        for number in range(1, ROUNDS + 1):
            self._go_round()
            if not self._waiting or number == ROUNDS or not self._wait(back_off(BACK_OFF, number)):
                break
        for recipient, error in self._waiting:
            self._fail(recipient, error or Failed("there was no time for it"))
        if self._total and not self._sent:
            address, why = self._failed[0]
            raise Failed(f"none of {self._total} mails was taken; {address}: {why.message}", **self.report())

    def report(self) -> dict[str, Any]:
        """How many were taken and how many not; of these the first `MOST_NAMED`, with the server's reply code, if any, and its words."""
        named = [_named(address, error) for address, error in self._failed[:MOST_NAMED]]
        return {"sent": self._sent, "not_sent": len(self._failed), "failed": named}

    def _go_round(self) -> None:
        waiting, self._waiting = self._waiting, []
        for number, (recipient, _) in enumerate(waiting):
            try:
                self._mailer.send(self._letter.to(recipient))
                self._sent += 1
            except NoConnection as error:
                self._stop([recipient for recipient, _ in waiting[number:]], error)
                return
            except Refused as error:
                if error.transient:
                    self._waiting.append((recipient, error))
                else:
                    self._fail(recipient, error)
            except Failed as error:
                self._uncertain += isinstance(error, Uncertain)
                self._fail(recipient, error)
            self._tell()

    def _stop(self, rest: Sequence[Mailbox], error: NoConnection) -> None:
        """The server cannot be had: end this round, and where that will not pass, the mailing."""
        if not self._sent and not self._uncertain:
            raise error
        if error.transient:
            self._waiting += [(recipient, error) for recipient in rest]
        else:
            for recipient in rest:
                self._fail(recipient, error)

    def _fail(self, recipient: Mailbox, error: Failed) -> None:
        self._failed.append((recipient.address, error))

    def _tell(self, note: str | None = None) -> None:
        progress(self._sent + len(self._failed), self._total, note)

    def _wait(self, seconds: float) -> bool:
        """Let time pass; whether the task's own time allows for it."""
        self._tell(f"{len(self._waiting)} refused for now; tried again in {seconds:.0f} s")
        context, until = CURRENT.get(), time.monotonic() + seconds
        try:
            while (left := until - time.monotonic()) > 0:
                time.sleep(min(left, 1.0))
                if context is not None:
                    context.check()  # in a thread nothing can be raised from outside
        except TimeLimitExceeded:
            return False
        return True


def _named(address: str, error: HandoffError) -> dict[str, Any]:
    return {"to": address, "code": error.details.get("smtp_code"), "message": error.message[:LONGEST_MESSAGE]}
