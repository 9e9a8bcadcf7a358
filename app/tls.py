"""TLS contexts made of files: what a good one is, for whoever listens and for whoever connects. No socket is touched here.

TLS 1.2 at least, and there only with forward secrecy and authenticated encryption; no compression, no renegotiation. A server that is
given a certification authority demands a certificate of it from every client; a client always checks the server's certificate and name.
Import it after the patching: `ssl` must not be loaded before. The socket that speaks TLS on the Text port is in `app/sealed.py`.
"""

import hashlib
import os
import ssl
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from app.errors import SettingsError

_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"  # of TLS 1.2; those of 1.3 are all good


class Files(NamedTuple):
    """Where it lies, as PEM: our certificate (with the chain behind it) and its key (where that is not in the same file), and the
    authority that the other side's certificate must be of. `flag` is how the settings begin in messages: `--text` for `--text-cert`."""

    flag: str
    cert: Path | None = None
    key: Path | None = None
    ca: Path | None = None


def server_context(files: Files, protocols: Sequence[str] = ()) -> ssl.SSLContext:
    """Of who listens; `protocols` are those of ALPN, the best first. Raises `SettingsError` where a file cannot be used."""
    if files.cert is None:
        raise SettingsError(f"{files.flag}-cert: TLS wants a certificate; give the path of one as PEM")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _harden(context)
    _load_identity(context, files)
    if files.ca is not None:
        _load_authority(context, files.ca, files.flag)
        context.verify_mode = ssl.CERT_REQUIRED
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


def client_context(files: Files) -> ssl.SSLContext:
    """Of who connects: the server's certificate must be of `ca` (without one: of an authority that the system knows), valid now, and for
    the name that was connected to. `cert` is shown to servers that ask. Raises `SettingsError` where a file cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _harden(context)
    if files.ca is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        _load_authority(context, files.ca, files.flag)
    if files.cert is not None:
        _load_identity(context, files)
    elif files.key is not None:
        raise SettingsError(f"{files.flag}-key: a key shows nothing without its certificate; give {files.flag}-cert as well")
    return context


def fingerprint(certificate: bytes) -> bytes:
    """SHA-256 of a certificate in DER: what a proof is bound to (as RFC 5929 has it, `tls-server-end-point`)."""
    return hashlib.sha256(certificate).digest()


def own_fingerprint(cert: Path) -> bytes:
    """That of the first certificate of a file which `server_context` has taken."""
    text = cert.read_text(encoding="ascii", errors="replace")
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    body = text[text.index(begin) : text.index(end) + len(end)]
    return fingerprint(ssl.PEM_cert_to_DER_cert(body))


def _harden(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_SINGLE_ECDH_USE


def _load_identity(context: ssl.SSLContext, files: Files) -> None:
    assert files.cert is not None
    key, flag = (files.key, f"{files.flag}-key") if files.key is not None else (files.cert, f"{files.flag}-cert")
    _check_private(key, flag)

    def locked() -> NoReturn:  # or OpenSSL would ask for the password on the terminal, and wait
        raise SettingsError(f"{flag}: {key} is locked with a password; give a key without one, in a file that only this user can read")

    _reading(f"{files.flag}-cert", files.cert, lambda: context.load_cert_chain(str(files.cert), str(key), password=locked))


def _load_authority(context: ssl.SSLContext, ca: Path, flag: str) -> None:
    _reading(f"{flag}-ca", ca, lambda: context.load_verify_locations(cafile=str(ca)))


def _check_private(path: Path, flag: str) -> None:
    """A key that anybody can read is none; a group may, as that of Debian's ssl-cert."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise SettingsError(f"{flag}: cannot read {path}: {error.strerror}") from None
    if mode & stat.S_IRWXO:
        raise SettingsError(f"{flag}: anybody on this machine can get at {path}, and there is a private key in it; chmod o= {path}")


def _reading(flag: str, path: Path, load: Callable[[], None]) -> None:
    try:
        load()
    except ssl.SSLError as error:
        why = "certificate and key do not belong together" if "MISMATCH" in str(error.reason) else "there is no PEM in it that can be used"
        raise SettingsError(f"{flag}: {path}: {why} ({error.reason or error})") from None
    except OSError as error:
        raise SettingsError(f"{flag}: cannot read {path}: {error.strerror or error}") from None
