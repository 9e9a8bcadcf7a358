"""What a server says when it starts: what is dangerous about it, then, once it serves, where it listens. Scripts read the latter."""

import logging
import os
import socket
from collections.abc import Callable, Mapping

from app import exposure, listeners
from app.address import Address
from app.settings import Settings

log = logging.getLogger(__name__)


def address_of(settings: Settings, role: str, listener: socket.socket) -> Address:
    """Where the role really listens: a free port resolved, a descriptor looked at."""
    return listeners.address_of(listener)._replace(tls=role == "worker" and settings.text.tls)


def warn(settings: Settings, addresses: Mapping[str, Address]) -> None:
    """Say what is dangerous; raises `SettingsError` for what is too dangerous."""
    warnings = exposure.check(settings, addresses)
    if os.geteuid() == 0:
        log.warning("running-as-root: tasks may do anything on this machine; start it as a user of its own")
    for warning in warnings:
        log.warning("open-to-others: %s", warning)


def announce(settings: Settings, addresses: Mapping[str, Address], say: Callable[[str], None]) -> None:
    """One line a listener, then `ready`."""
    lines, s = [], "s" if settings.ws_cert is not None else ""
    if address := addresses.get("gateway"):
        lines.append(f"gateway listening on {address}" if address.path else f"gateway listening on ws{s}://{address}/ws")
    if address := addresses.get("worker"):
        lines.append(f"workers listening on {address}" if address.path or address.tls else f"workers listening on text://{address}")
    if (address := addresses.get("gateway")) and not address.path:
        lines.append(f"page at http{s}://{address}/")
    say("\n".join([*lines, "ready\n"]))


def to_stdout(text: str) -> None:
    """For whoever started us."""
    print(text, end="", flush=True)
