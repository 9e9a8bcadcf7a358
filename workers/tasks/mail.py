"""Tasks that send mail: one, or one to each of many. To `SMTP_URL`; where that is not set, into the Maildir `outbox` in the data directory.

They are not retryable: a worker that dies in the middle may or may not have sent the mail, and nobody wants two.
"""

import os

from app.errors import Failed
from workers.context import current, progress
from workers.letter import Letter, mailbox
from workers.mailer import Mailer, mailer_for
from workers.registry import task
from workers.smtp import Refused

MOST_REFUSALS_NAMED = 100


@task
def send_mail(from_: str, to: str, contents: str, subject: str = "") -> dict[str, int]:
    """Send one mail. Addresses are like a@x.org or Name <a@x.org>."""
    letter = Letter(from_, subject, contents)
    _mailer().send(letter.to(mailbox(to, "to")))
    return {"sent": 1}


@task
def send_mails(from_: str, to: list[str], subject: str, contents: str) -> dict[str, int]:
    """Send one mail to each address, and tell how far it is. A recipient whom the server refuses does not stop the others.

    Nothing is sent where an address cannot be read. What was sent before an error stands in the error, as `sent`.
    """
    letter = Letter(from_, subject, contents)
    recipients = [mailbox(address, f"to[{number}]") for number, address in enumerate(to)]
    mailer = _mailer()
    refusals: dict[int, Refused] = {}
    for number, recipient in enumerate(recipients):
        try:
            mailer.send(letter.to(recipient))
        except Refused as refusal:
            refusals[number] = refusal
        except Failed as error:
            raise Failed(f"to[{number}]: {error.message}", sent=number - len(refusals), refused=_some(refusals)) from None
        progress(number + 1, len(recipients))
    if refusals:
        raise _refused(refusals, len(recipients))
    return {"sent": len(recipients)}


def _refused(refusals: dict[int, Refused], of: int) -> Failed:
    first, refusal = next(iter(refusals.items()))
    text = f"{len(refusals)} of {of} mails were not taken, the first of them to[{first}]: {refusal.message}"
    return Failed(text, sent=of - len(refusals), refused=_some(refusals))


def _some(refusals: dict[int, Refused]) -> list[int]:
    return list(refusals)[:MOST_REFUSALS_NAMED]


def _mailer() -> Mailer:
    """By the variables that the worker process sets from its settings."""
    smtp_url = os.environ.get("HANDOFF_SMTP_URL") or os.environ.get("SMTP_URL", "")
    return mailer_for(smtp_url, _data_dir())


def _data_dir() -> str:
    try:
        given = current().data_dir
    except LookupError:  # called as a plain function
        given = ""
    return given or os.environ.get("HANDOFF_DATA_DIR") or "var"
