"""What an SMTP URL says: the server, how its connection is made safe, and who we are there. How it is spoken to: `workers/smtp.py`.

    smtp://host                       port 25, in clear
    smtp://user:password@host/?starttls=1      port 587; STARTTLS, or no mail is sent
    smtps://user:password@host                 port 465; TLS from the first byte (RFC 8314)

More after the `?`: `cafile=/path` for a private CA, in place of the system's; `verify=0` to believe any certificate; `insecure=1` to send a
password in clear to another machine, which is refused otherwise. User and password are percent-encoded. No message here repeats the URL,
since a password may be in it.
"""

import ipaddress
import os
import ssl
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from app.errors import SettingsError

Security = Literal["none", "starttls", "tls"]

PORTS: tuple[tuple[Security, int], ...] = (("none", 25), ("starttls", 587), ("tls", 465))
OPTIONS = ("starttls", "cafile", "verify", "insecure")


@dataclass(frozen=True, slots=True)
class SmtpUrl:
    """`user` is empty where nobody logs in; `cafile` where the system's certificates are believed."""

    host: str
    port: int
    security: Security
    user: str = ""
    password: str = field(default="", repr=False)
    cafile: str = ""
    verify: bool = True

    @property
    def name(self) -> str:
        """Host and port, for messages."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def tls(self) -> ssl.SSLContext | None:
        """How the server has to prove who it is; None where it need not. Raises `SettingsError` for a `cafile` without certificates."""
        if self.security == "none":
            return None
        try:
            context = ssl.create_default_context(cafile=self.cafile or None)
        except OSError as error:  # what is not PEM is an SSLError, which is one
            raise SettingsError(f"the SMTP URL: cafile={self.cafile} cannot be read: {error.strerror or error}") from None
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def read_smtp_url(text: str) -> SmtpUrl:
    """Raises `SettingsError` for what is no SMTP URL, for an option that there is not, and for a password that would travel in clear."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise SettingsError("the SMTP URL has no readable host and port; give smtp://host:25") from None
    if parts.scheme not in ("smtp", "smtps") or not parts.hostname or parts.path not in ("", "/") or parts.fragment:
        raise SettingsError(
            "the SMTP URL must be like smtp://host:25, smtp://user:password@host:587/?starttls=1 or smtps://user:password@host"
            " (in a user or password, /, ?, #, : and @ are written as %2F, %3F, %23, %3A and %40)"
        )
    options = _options(parts)
    security = _security(parts.scheme, options)
    url = SmtpUrl(
        host=parts.hostname,
        port=port or dict(PORTS)[security],
        security=security,
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        cafile=options.get("cafile", ""),
        verify=_flag(options, "verify", default=True),
    )
    _check(url, options)
    return url


def _options(parts: SplitResult) -> dict[str, str]:
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    options = dict(pairs)
    unknown = sorted(options.keys() - set(OPTIONS))
    if unknown or len(options) != len(pairs):
        what = f"has no option {unknown[0]!r}" if unknown else "names an option twice"
        raise SettingsError(f"the SMTP URL {what}; there are {', '.join(OPTIONS)}")
    return options


def _security(scheme: str, options: dict[str, str]) -> Security:
    starttls = _flag(options, "starttls", default=False)
    if scheme == "smtps":
        if "starttls" in options:
            raise SettingsError("the SMTP URL: smtps:// has TLS from the first byte, so starttls has no meaning there")
        return "tls"
    return "starttls" if starttls else "none"


def _flag(options: dict[str, str], name: str, *, default: bool) -> bool:
    value = options.get(name, "1" if default else "0")
    if value not in ("0", "1"):
        raise SettingsError(f"the SMTP URL: {name} must be 0 or 1")
    return value == "1"


def _check(url: SmtpUrl, options: dict[str, str]) -> None:
    insecure = _flag(options, "insecure", default=False)
    if url.security == "none":
        for name in ("cafile", "verify"):
            if name in options:
                raise SettingsError(f"the SMTP URL: {name} has no meaning without TLS; use smtps:// or starttls=1")
        if url.user and not insecure and not _is_loopback(url.host):
            raise SettingsError(
                f"the SMTP URL would send the password in clear to {url.name}; use smtps:// or starttls=1,"
                " or say insecure=1 to do it all the same"
            )
    elif url.cafile and not url.verify:
        raise SettingsError("the SMTP URL: cafile has no meaning with verify=0")
    elif url.cafile and not os.path.isfile(url.cafile):
        raise SettingsError(f"the SMTP URL: cafile={url.cafile} is no file")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
