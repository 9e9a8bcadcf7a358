"""The server of an SMTP URL: connections to it, greeted, as safe as the URL demands, and logged in.

Also what it means where none can be had. What is then said on a connection is in `workers/smtp.py`.
"""

import smtplib
import socket
import ssl
from functools import cached_property

from workers.smtp import NoConnection, SmtpConnection, is_transient, said
from workers.smtp_url import SmtpUrl, read_smtp_url


class SmtpServer:
    """The server of an SMTP URL. Raises `SettingsError` for one that cannot be used."""

    def __init__(self, url: str) -> None:
        self._url: SmtpUrl = read_smtp_url(url)
        self.name = self._url.name

    def connect(self) -> SmtpConnection:
        """A new connection, greeted, as safe as the URL demands, and logged in. Raises `NoConnection`."""
        connection = SmtpConnection()
        try:
            self._set_up(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    @cached_property
    def _tls(self) -> ssl.SSLContext | None:
        return self._url.tls()

    def _set_up(self, connection: SmtpConnection) -> None:
        url, what = self._url, "the connection"
        try:
            connection.greet(url.host, url.port, self._tls if url.security == "tls" else None)
            if url.security == "starttls" and self._tls is not None:
                what = "STARTTLS"
                connection.start_tls(self._tls, url.host)
            if url.user:
                what = "the user or password"
                connection.log_in(url.user, url.password)
        except smtplib.SMTPResponseException as error:
            code, text = error.smtp_code, _as_bytes(error.smtp_error)
            message = f"the mail server {self.name} refused {what}: {said(code, text)}"
            raise NoConnection(message, transient=is_transient(code), smtp_code=code) from None
        except smtplib.SMTPNotSupportedError as error:
            raise NoConnection(f"the mail server {self.name} {error}", transient=False) from None
        except (OSError, smtplib.SMTPException) as error:
            message = f"no connection to the mail server {self.name}: {_why(error)}"
            raise NoConnection(message, transient=_may_pass(error)) from None


def _may_pass(error: Exception) -> bool:
    """Whether the next connection may go better: not where a name or a certificate is wrong."""
    if isinstance(error, socket.gaierror):
        return error.errno == socket.EAI_AGAIN
    return not isinstance(error, ssl.SSLError) or isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError)


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message}); a CA of your own is named by cafile= in the SMTP URL"
    if isinstance(error, ssl.SSLError) and error.reason == "WRONG_VERSION_NUMBER":
        return "it speaks no TLS there; smtps:// is for port 465, most often, and smtp://…?starttls=1 for 587"
    return str(error)


def _as_bytes(text: bytes | str) -> bytes:
    return text.encode() if isinstance(text, str) else text
