"""Mailers: how a mail leaves this process, by SMTP or into a Maildir; `mailer_for` chooses.

SMTP connections are kept and used again, each by one task at a time. A mail is never sent twice: a kept connection that turns out to be
dead is replaced only while the server has not begun to take the message. The Maildir is for the first minute and for looking at: its
files are written in the hub and without fsync, in a tenth of a millisecond. What is in a mail: `workers/letter.py`.
"""

import itertools
import os
import secrets
import socket
import threading
import time
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from app.errors import Failed
from workers.letter import Mail
from workers.smtp import Lost, NoConnection, Refused, SmtpConnection
from workers.smtp_server import SmtpServer

KEEP = 30.0
"""Seconds an unused connection is kept."""


class Mailer(Protocol):
    """Takes mails; one for all tasks of a native thread, which nearly always means of a process."""

    def send(self, mail: Mail) -> None:
        """Block until the mail is taken. Raises `Failed`, which says why it was not, or that nobody knows (see `workers/smtp.py`)."""


def mailer_for(smtp_url: str, data_dir: str) -> Mailer:
    """The mailer of this thread: SMTP to `smtp_url`, or where that is empty the Maildir `outbox` in `data_dir`.

    Raises `SettingsError` for a URL that cannot be used.
    """
    return _mailer_in(threading.get_native_id(), smtp_url, data_dir)


@lru_cache(maxsize=64)
def _mailer_in(thread: int, smtp_url: str, data_dir: str) -> Mailer:
    """One a native thread: a socket of gevent belongs to the hub, and so to the thread, that made it."""
    return SmtpMailer(SmtpServer(smtp_url)) if smtp_url else MaildirMailer(Path(data_dir) / "outbox")


class SmtpMailer:
    """A server, and the connections to it that are kept: as many as mails were ever sent at once, for `KEEP` seconds."""

    def __init__(self, server: SmtpServer) -> None:
        self._server = server
        self._kept: list[SmtpConnection] = []

    def send(self, mail: Mail) -> None:
        """See `Mailer`."""
        connection = self._begin(mail)
        try:
            connection.hand_over(mail.message)
        except Refused:
            self._keep(connection)
            raise
        except Lost as error:
            connection.close()
            raise self._lost(error) from None
        except BaseException:  # its state is unknown: the task may have been cancelled half-way
            connection.close()
            raise
        self._keep(connection)

    def _begin(self, mail: Mail) -> SmtpConnection:
        """A connection whose server waits for the message."""
        kept = self._take_kept()
        try:
            return self._offer(kept or self._server.connect(), mail)
        except Lost as error:
            if kept is None:
                raise self._lost(error) from None
        try:
            return self._offer(self._server.connect(), mail)  # the kept one was dead, and nothing of this mail was taken
        except Lost as error:
            raise self._lost(error) from None

    def _offer(self, connection: SmtpConnection, mail: Mail) -> SmtpConnection:
        try:
            connection.offer(mail)
        except Refused:
            if connection.reset():
                self._keep(connection)
            raise
        except BaseException:
            connection.close()
            raise
        return connection

    def _lost(self, error: Lost) -> NoConnection:
        return NoConnection(f"the mail server {self._server.name} ended the connection: {error}", transient=True)

    def _take_kept(self) -> SmtpConnection | None:
        """The one used last, so that those not needed grow old; the old ones are closed on the way."""
        oldest = time.monotonic() - KEEP
        while self._kept and self._kept[0].used_at < oldest:
            self._kept.pop(0).close()
        return self._kept.pop() if self._kept else None

    def _keep(self, connection: SmtpConnection) -> None:
        if connection.alive:
            connection.used_at = time.monotonic()
            self._kept.append(connection)


class MaildirMailer:
    """A Maildir, one file a mail; any mail reader opens it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._numbers = itertools.count()
        self._host = socket.gethostname().replace("/", "_").replace(":", "_")
        self._make()

    def send(self, mail: Mail) -> None:
        """See `Mailer`."""
        message = f"Return-Path: <{mail.sender}>\n".encode() + mail.message.replace(b"\r\n", b"\n")
        try:
            try:
                self._write(message)
            except FileNotFoundError:  # somebody emptied the place by removing it
                self._make()
                self._write(message)
        except OSError as error:
            raise Failed(f"the mail cannot be written to the outbox: {error.strerror}") from None
        time.sleep(0)  # files block the hub; let it turn between two, so that progress is seen and neighbours run

    def _write(self, message: bytes) -> None:
        """Under `tmp` first, so that a reader of `new` only sees whole mails."""
        name = f"{time.time():.6f}.P{os.getpid()}Q{next(self._numbers)}R{secrets.token_hex(4)}.{self._host}"
        begun = self._path / "tmp" / name
        descriptor = os.open(begun, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb", buffering=0) as file:
                file.write(message)
            begun.rename(self._path / "new" / name)
        except BaseException:
            begun.unlink(missing_ok=True)
            raise

    def _make(self) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for directory in (self._path, *(self._path / name for name in ("tmp", "new", "cur"))):
            directory.mkdir(mode=0o700, exist_ok=True)
