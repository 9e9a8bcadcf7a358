"""Addresses as people write them: `127.0.0.1:12345`, `[::1]:12345`, `tls://host:12345`, `unix:/path`, `fd:0`. Text in, value out."""

import socket
from typing import NamedTuple

from app.errors import SettingsError


class Address(NamedTuple):
    """Where somebody listens: a TCP host and port, with TLS or without, the path of a unix socket, or a descriptor that was inherited and
    listens already."""

    host: str
    port: int
    path: str = ""
    fd: int = -1
    tls: bool = False

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read an address; raises `SettingsError` where it is none. Port 0 means any free one."""
        if text.startswith("unix:"):
            return cls._unix(text[5:])
        if text.startswith("fd:"):
            return cls._inherited(text[3:])
        if text.startswith("tls://"):
            return cls._over_tls(text[6:])
        host, colon, port = text.rpartition(":")
        if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
            raise SettingsError(f"{text!r} is not an address; write HOST:PORT, [IPV6]:PORT or unix:/path")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise SettingsError(f"{text!r}: an IPv6 address goes in brackets, as in [::1]:{port}")
        return cls(host or "127.0.0.1", int(port))

    @classmethod
    def _unix(cls, path: str) -> "Address":
        if not path:
            raise SettingsError("'unix:' wants a path, as in unix:/run/handoff.sock")
        return cls("", 0, path)

    @classmethod
    def _inherited(cls, number: str) -> "Address":
        if not number.isascii() or not number.isdigit() or len(number) > 9:
            raise SettingsError("'fd:' wants the number of a descriptor, as in fd:0")
        return cls("", 0, fd=int(number))

    @classmethod
    def _over_tls(cls, text: str) -> "Address":
        address = cls.parse(text)
        if address.path or address.tls:
            raise SettingsError(f"'tls://{text}' is not an address; write tls://HOST:PORT")
        return address._replace(tls=True)

    @property
    def family(self) -> socket.AddressFamily:
        """The socket family that this address is of."""
        if self.path:
            return socket.AF_UNIX
        return socket.AF_INET6 if ":" in self.host else socket.AF_INET

    @property
    def sockaddr(self) -> str | tuple[str, int]:
        """What `bind` and `connect` take. Raises `SettingsError` for a descriptor, which is no place that others could find."""
        if self.fd >= 0:
            raise SettingsError(f"{self} is where a process listens that inherited it; write where that is, as HOST:PORT or unix:/path")
        return self.path or (self.host, self.port)

    @property
    def is_loopback(self) -> bool:
        """Whether nobody outside this machine can connect to it; of a descriptor, only its listener knows."""
        return bool(self.path) or self.host in ("localhost", "::1") or self.host.startswith("127.")

    def __str__(self) -> str:
        scheme = "tls://" if self.tls else ""
        if self.path or self.fd >= 0:
            return f"unix:{self.path}" if self.path else f"{scheme}fd:{self.fd}"
        return f"{scheme}[{self.host}]:{self.port}" if ":" in self.host else f"{scheme}{self.host}:{self.port}"
