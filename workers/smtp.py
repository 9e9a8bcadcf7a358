"""One server that takes mail by SMTP, and a connection to it: what is said, and what its answers mean for a mail.

Keeping connections and choosing one is in `workers/mailer.py`, the mail itself in `workers/letter.py`. What differs from `smtplib.SMTP`:
no DNS for our own name, three commands in one write where the server has PIPELINING, the message in one write, and errors that tell
whether the mail was refused, cannot have been taken, or may have been.
"""

import smtplib
import socket
from urllib.parse import unquote, urlsplit

from app.errors import Failed, SettingsError
from workers.letter import Mail

CONNECT_TIMEOUT = 10.0
REPLY_TIMEOUT = 60.0
"""Seconds a server may take to answer a command."""
TAKE_TIMEOUT = 600.0
"""Seconds a server may take to say that it has the message: RFC 5321, 4.5.3.2.6."""
CLOSING = 421
"""Said by a server that closes the connection, of its own accord or instead of an answer."""


class Refused(Failed):
    """The server answered with an error: this mail was not taken; others may be, on the same connection."""

    def __init__(self, what: str, code: int, text: bytes) -> None:
        super().__init__(f"the mail server refused {what}: {_said(code, text)}", smtp_code=code)


class Lost(Exception):
    """The connection is dead, and the server had not begun to take the message."""


class SmtpServer:
    """What an SMTP URL says. `name` is its host and port, without the password. Raises `SettingsError`, which does not repeat the URL."""

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            self._port = parts.port or smtplib.SMTP_PORT
        except ValueError:
            raise SettingsError("the SMTP URL has no readable host and port; give smtp://host:25") from None
        if parts.scheme != "smtp" or not parts.hostname:
            raise SettingsError("the SMTP URL must be like smtp://host:25 or smtp://user:password@host:25")
        self._host = parts.hostname
        self.name = f"{self._host}:{self._port}"
        self._user = unquote(parts.username or "")
        self._password = unquote(parts.password or "")

    def connect(self) -> "SmtpConnection":
        """A new connection, greeted and logged in. Raises `Failed`."""
        connection = SmtpConnection()
        try:
            connection.greet(self._host, self._port)
            if self._user:
                connection.login(self._user, self._password)
        except smtplib.SMTPResponseException as error:
            connection.close()
            what = "the user or password" if isinstance(error, smtplib.SMTPAuthenticationError) else "the connection"
            raise Refused(what, error.smtp_code, _as_bytes(error.smtp_error)) from None
        except (OSError, smtplib.SMTPException) as error:
            connection.close()
            raise Failed(f"no connection to the mail server {self.name}: {error}; nothing was sent") from None
        except BaseException:
            connection.close()
            raise
        return connection


class SmtpConnection(smtplib.SMTP):
    """Used by one task at a time. `used_at` belongs to whoever keeps it."""

    used_at = 0.0

    def __init__(self) -> None:
        super().__init__(local_hostname="localhost", timeout=CONNECT_TIMEOUT)  # not yet connected; its name is told in `greet`

    def greet(self, host: str, port: int) -> None:
        """Connect and say EHLO. Raises `OSError` or `SMTPException`."""
        code, text = self.connect(host, port)
        if code != 220:
            raise smtplib.SMTPConnectError(code, text)
        sock = self._connected()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(REPLY_TIMEOUT)
        self.local_hostname = _own_name(sock)
        self.ehlo_or_helo_if_needed()

    def offer(self, mail: Mail) -> None:
        """Name the sender and the recipient, and have the server wait for the message. Raises `Refused` or `Lost`."""
        if mail.international and not self.has_extn("smtputf8"):
            raise Refused("the address", 553, b"it is not ASCII before the @, and the server has no SMTPUTF8")
        options = " SMTPUTF8 BODY=8BITMIME" if mail.international else ""
        steps = (
            ("the sender", f"MAIL FROM:<{mail.sender}>{options}\r\n".encode(), 250),
            ("the recipient", f"RCPT TO:<{mail.recipient}>\r\n".encode(), 250),
            ("the message", b"DATA\r\n", 354),
        )
        try:
            if self.has_extn("pipelining"):
                self._all_at_once(steps)
            else:
                for what, command, wanted in steps:
                    self.send(command)
                    self._expect(what, wanted)
        except smtplib.SMTPServerDisconnected as error:
            raise Lost(str(error)) from None

    def _all_at_once(self, steps: tuple[tuple[str, bytes, int], ...]) -> None:
        self.send(b"".join(command for _, command, _ in steps))
        refused: Refused | None = None
        for what, _, wanted in steps:
            try:
                self._expect(what, wanted)
            except Refused as error:
                refused = refused or error
            else:
                if refused is not None and wanted == 354:  # it waits for a message that must not come
                    self.close()
        if refused is not None:
            raise refused

    def _expect(self, what: str, wanted: int) -> None:
        code, text = self.getreply()
        if code in (CLOSING, -1):
            self.close()
            raise Lost(_said(code, text))
        if code // 100 != wanted // 100:
            raise Refused(what, code, text)

    def hand_over(self, message: bytes) -> None:
        """Send the message. Raises `Refused`, or `Failed` where it cannot be known whether the server took it."""
        lines = message.replace(b"\r\n.", b"\r\n..")  # it begins with a header, so never with a dot
        try:
            self._connected().settimeout(TAKE_TIMEOUT)
            self.send(lines + b".\r\n")
            code, text = self.getreply()
            self._connected().settimeout(REPLY_TIMEOUT)
        except (OSError, smtplib.SMTPException) as error:
            raise Failed(f"the connection to the mail server was lost ({error}) after the mail: it may or may not have been sent") from None
        if code == CLOSING:
            self.close()
        if code // 100 != 2:
            raise Refused("the message", code, text)

    def reset(self) -> bool:
        """Forget the mail that was refused; whether the connection can be used again."""
        try:
            code, _ = self.rset()
        except (OSError, smtplib.SMTPException):
            code = -1
        if code != 250:
            self.close()
        return code == 250

    @property
    def alive(self) -> bool:
        """Whether it has not been closed on our side."""
        return self.sock is not None

    def _connected(self) -> socket.socket:
        if self.sock is None:
            raise smtplib.SMTPServerDisconnected("not connected")
        return self.sock


def _own_name(sock: socket.socket) -> str:
    """A name for EHLO that takes no DNS: the host's where it is a full one, else the address that we connect from."""
    name = socket.gethostname()
    if "." in name and name.isascii():
        return name
    address = str(sock.getsockname()[0])
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"


def _said(code: int, text: bytes) -> str:
    words = " ".join(text.decode(errors="replace").split())[:300]
    return f"{code} {words}" if code >= 0 else f"an answer that is no SMTP: {words}"


def _as_bytes(text: bytes | str) -> bytes:
    return text.encode() if isinstance(text, str) else text
