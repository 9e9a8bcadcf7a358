"""A certification authority of the tests' own, and servers' certificates of it."""

import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Authority:
    """`cafile`: what a client has to be told, to believe the servers."""

    cafile: Path
    here: ssl.SSLContext
    """Of a server that is `127.0.0.1` and `localhost`."""
    elsewhere: ssl.SSLContext
    """Of a server whose certificate is for another name."""


def make_authority(directory: Path) -> Authority:
    """Its certificate goes into a file there."""
    authority = trustme.CA()
    cafile = directory / "ca.pem"
    authority.cert_pem.write_to_path(cafile)
    return Authority(cafile, _server(authority, "127.0.0.1", "localhost"), _server(authority, "mail.x.org"))


def _server(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context
