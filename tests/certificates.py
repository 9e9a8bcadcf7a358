"""A certification authority of the tests' own, and servers' certificates of it."""

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
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


@dataclass(frozen=True)
class Identities:
    """PEM files, each a certificate with its key but for `ca`. `server` is `127.0.0.1` and `localhost`; so is `impostor`, with another key;
    so was `expired`; `elsewhere` is for another name; `stranger` is of another authority; `client` is somebody known."""

    authority: trustme.CA
    ca: Path
    server: Path
    impostor: Path
    expired: Path
    elsewhere: Path
    stranger: Path
    client: Path


def make_identities(directory: Path) -> Identities:
    """All of them, in files there."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(directory / "ca.pem")
    here = ("127.0.0.1", "localhost")

    def issue(name: str, by: trustme.CA, *names: str, expires: datetime | None = None) -> Path:
        path = directory / f"{name}.pem"
        by.issue_cert(*names, not_after=expires).private_key_and_cert_chain_pem.write_to_path(path)
        path.chmod(0o600)
        return path

    return Identities(
        authority,
        directory / "ca.pem",
        issue("server", authority, *here),
        issue("impostor", authority, *here),
        issue("expired", authority, *here, expires=datetime(2020, 1, 1, tzinfo=UTC)),
        issue("elsewhere", authority, "other.x.org"),
        issue("stranger", trustme.CA(), *here),
        issue("client", authority, "gateway.x.org"),
    )
