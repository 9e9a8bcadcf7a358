"""Tasks that send mail: one, or one to each of many. To `SMTP_URL`; where that is not set, into the Maildir `outbox` in the data directory.

They are not retryable: a worker that dies in the middle may or may not have sent the mail, and nobody wants two. What the server refuses
for now they try again themselves: `send_mail` gives its slot back meanwhile, `send_mails` keeps it (`workers/mailing.py`).
"""

import os
from collections.abc import Sequence
from typing import Any

from app.errors import BadArguments, Failed
from workers.context import Retry, current
from workers.letter import LONGEST_ADDRESS, Letter, Mailbox, mailbox
from workers.mailer import Mailer, mailer_for
from workers.mailing import Mailing, Unsent
from workers.mime import Attachments
from workers.registry import task
from workers.smtp import NoConnection, Refused


class Later(Failed, Retry):
    """Nothing was taken, and may be later: the task is tried again, and fails so where no attempts are left."""


@task(attempts=7, backoff=10.0)
def send_mail(
    from_: str,
    to: str,
    contents: str,
    subject: str = "",
    html: str = "",
    attachments: Sequence[dict[str, str]] = (),
    reply_to: str = "",
) -> dict[str, int]:
    """Send one mail. Addresses are like a@x.org or Name <a@x.org>; an attachment is {"name", "content" in base64, "type"}.

    What the server refuses for now (4xx) is tried again for about ten minutes, what it refuses for good (5xx) is not.
    """
    letter = _letter(from_, subject, contents, html, attachments, reply_to)
    mail = letter.to(mailbox(to, "to"))
    try:
        _mailer().send(mail)
    except (Refused, NoConnection) as error:
        raise _ending(error) from None
    return {"sent": 1}


@task(attempts=7, backoff=10.0)
def send_mails(
    from_: str,
    to: list[str],
    subject: str,
    contents: str,
    html: str = "",
    attachments: Sequence[dict[str, str]] = (),
    reply_to: str = "",
) -> dict[str, Any]:
    """Send one mail to each address, and tell how far it is. One that is refused stops nobody; the result names those not sent.

    So it does with one that cannot be read. It fails where no mail at all was taken.
    """
    letter = _letter(from_, subject, contents, html, attachments, reply_to)
    mailing = Mailing(_mailer(), letter, *_read(to))
    try:
        mailing.send()
    except NoConnection as error:
        raise _ending(error) from None
    return mailing.report()


def _letter(from_: str, subject: str, contents: str, html: str, attachments: Attachments, reply_to: str) -> Letter:
    return Letter(from_, subject, contents, html=html, attachments=attachments, reply_to=reply_to)


def _read(to: Sequence[str]) -> tuple[list[Mailbox], list[Unsent]]:
    """Whom a mail can be sent, and whom not; raises `BadArguments` where it is nobody at all."""
    recipients: list[Mailbox] = []
    unread: list[Unsent] = []
    for number, address in enumerate(to):
        try:
            recipients.append(mailbox(address, f"to[{number}]"))
        except BadArguments as error:
            unread.append((address[:LONGEST_ADDRESS], error))
    if unread and not recipients:
        raise unread[0][1]
    return recipients, unread


def _ending(error: Refused | NoConnection) -> Failed:
    return Later(error.message, **error.details) if error.transient else error


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
