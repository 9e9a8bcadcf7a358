"""A connection to a server that takes mail by SMTP: what is said, and what its answers mean for a mail.

Connecting to the server of a URL is in `workers/smtp_server.py`, keeping connections in `workers/mailer.py`, the mail itself in
`workers/letter.py`. What differs from `smtplib.SMTP`: no DNS for our own name, three commands in one write where the server has
PIPELINING, the message in one write, users and passwords in UTF-8, and errors that tell whether this mail was refused, none can be sent,
or this one may have been.
"""

import base64
import smtplib
import socket
import ssl

from app.errors import Failed
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
        super().__init__(f"the mail server refused {what}: {said(code, text)}", smtp_code=code)
        self.transient = is_transient(code)


class NoConnection(Failed):
    """The server cannot be had: this mail was not sent, and no other can be; `transient` where it may be there later."""

    def __init__(self, message: str, *, transient: bool, **details: int) -> None:
        super().__init__(f"{message}; nothing was sent", **details)
        self.transient = transient


class Uncertain(Failed):
    """The message was handed over and no answer came: the server may or may not have taken it."""


class Lost(Exception):
    """The connection is dead, and the server cannot have taken the mail."""


class SmtpConnection(smtplib.SMTP):
    """Used by one task at a time. `used_at` belongs to whoever keeps it."""

    used_at = 0.0

    def __init__(self) -> None:
        super().__init__(local_hostname="localhost", timeout=CONNECT_TIMEOUT)  # not yet connected; its name is told in `greet`

    def greet(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        """Connect, in TLS from the first byte where `tls` is given, and say EHLO. Raises `OSError` or `SMTPException`."""
        self.sock = _open(host, port, tls)
        code, text = self.getreply()
        if code != 220:
            raise smtplib.SMTPConnectError(code, text)
        self.local_hostname = _own_name(self._connected())
        self.ehlo_or_helo_if_needed()

    def start_tls(self, tls: ssl.SSLContext, host: str) -> None:
        """Go on in TLS: RFC 3207. Raises `OSError` or `SMTPException`, and never goes on in clear."""
        if not self.has_extn("starttls"):
            raise smtplib.SMTPNotSupportedError("offers no STARTTLS, which the SMTP URL demands")
        code, text = self.docmd("STARTTLS")
        if code != 220:
            raise smtplib.SMTPResponseException(code, text)
        self.sock = tls.wrap_socket(self._connected(), server_hostname=host)
        self.file = None  # with what came in clear after the answer: somebody may have put it there
        self.ehlo_resp = self.helo_resp = None
        self.esmtp_features = {}
        self.ehlo_or_helo_if_needed()

    def log_in(self, user: str, password: str) -> None:
        """By the first of PLAIN, LOGIN and CRAM-MD5 that the server has, once. Raises `SMTPException`."""
        offered = self.esmtp_features.get("auth", "").upper().split()
        if "PLAIN" in offered:
            code, text = self.docmd("AUTH", "PLAIN " + _base64(f"\0{user}\0{password}"))
        elif "LOGIN" in offered:
            code, text = self.docmd("AUTH", "LOGIN")
            for word in (user, password):
                if code == 334:
                    code, text = self.docmd(_base64(word))
        elif "CRAM-MD5" in offered and (user + password).isascii():
            self.user, self.password = user, password
            code, text = self.auth("CRAM-MD5", self.auth_cram_md5)
        else:
            raise smtplib.SMTPNotSupportedError("offers no login that we know (AUTH PLAIN, LOGIN or CRAM-MD5)")
        if code != 235:
            raise smtplib.SMTPAuthenticationError(code, text)

    def offer(self, mail: Mail) -> None:
        """Name the sender and the recipient, and have the server wait for the message. Raises `Refused` or `Lost`."""
        self._check(mail)
        options = " SMTPUTF8 BODY=8BITMIME" if mail.international else ""
        if self.has_extn("size"):
            options += f" SIZE={len(mail.message)}"
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
        except smtplib.SMTPException as error:  # hung up, or said a line without end
            raise Lost(str(error)) from None

    def _check(self, mail: Mail) -> None:
        """Refuse what the server has said that it cannot take; a message too large would be sent in vain (RFC 1870)."""
        if mail.international and not self.has_extn("smtputf8"):
            raise Refused("the address", 553, b"it is not ASCII before the @, and the server has no SMTPUTF8")
        most = self.esmtp_features.get("size", "")
        if most.isdecimal() and 0 < int(most) < len(mail.message):
            raise Refused("the message", 552, b"it has %d bytes, and the server takes %s" % (len(mail.message), most.encode()))

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
            raise Lost(said(code, text))
        if code // 100 != wanted // 100:
            raise Refused(what, code, text)

    def hand_over(self, message: bytes) -> None:
        """Send the message. Raises `Refused`, `Lost`, or `Uncertain` where it cannot be known whether the server took it."""
        lines = message.replace(b"\r\n.", b"\r\n..")  # it begins with a header, so never with a dot
        try:
            self._connected().settimeout(TAKE_TIMEOUT)
            self.send(lines + b".\r\n")
        except (OSError, smtplib.SMTPException) as error:  # the dot, which makes it a mail, is the last that leaves
            raise Lost(f"{error}, in the middle of the message") from None
        try:
            code, text = self.getreply()
            self._connected().settimeout(REPLY_TIMEOUT)
        except (OSError, smtplib.SMTPException) as error:
            message_text = f"the connection to the mail server was lost ({error}) after the mail: it may or may not have been sent"
            raise Uncertain(message_text) from None
        if code in (CLOSING, -1):
            self.close()
        if code == -1:
            raise Uncertain(f"the mail server answered the mail with {said(code, text)}; it may or may not have been sent")
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


def _open(host: str, port: int, tls: ssl.SSLContext | None) -> socket.socket:
    sock = socket.create_connection((host, port), CONNECT_TIMEOUT)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            sock = tls.wrap_socket(sock, server_hostname=host)
        sock.settimeout(REPLY_TIMEOUT)
    except BaseException:
        sock.close()
        raise
    return sock


def _own_name(sock: socket.socket) -> str:
    """A name for EHLO that takes no DNS: the host's where it is a full one, else the address that we connect from."""
    name = socket.gethostname()
    if "." in name and name.isascii():
        return name
    address = str(sock.getsockname()[0])
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"


def is_transient(code: int) -> bool:
    """Whether a server that answers so means not now, rather than never: RFC 5321, 4.2.1."""
    return code // 100 == 4


def said(code: int, text: bytes) -> str:
    """An answer on one line, no longer than fits in a message."""
    words = " ".join(text.decode(errors="replace").split())[:300]
    return f"{code} {words}" if code >= 0 else f"an answer that is no SMTP: {words}"


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode("ascii")
