"""What the kernel knows of a connection: its ends, its state, how many bytes have passed. It is asked where somebody wants to see it, so
nothing is counted on the way of a message."""

import _socket
import fcntl
import os
import socket
import struct
from contextlib import closing
from typing import Any, Final

_SIOCINQ: Final = 0x541B
_SIOCOUTQ: Final = 0x5411
_BYTES: Final = struct.Struct("<QQ")
_ACKED_AT: Final = 120
"""Where `tcpi_bytes_acked` and `tcpi_bytes_received` stand in `struct tcp_info` (linux/tcp.h), since Linux 4.1."""

_BY_DESCRIPTOR: Final = "/proc/self/fd/"
"""Where the run directory is reached through, whose path may be too long for a socket's name."""

_STATES: Final = (
    "",
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT1",
    "FIN_WAIT2",
    "TIME_WAIT",
    "CLOSE",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "CLOSING",
)


def look(descriptor: int) -> dict[str, Any]:
    """Of a connected socket: `transport` (tcp or unix), `local` and `remote` address, `state`, `receive_queue` and `send_queue` (bytes that
    wait in the kernel), and over TCP `received` and `sent` (bytes; those that the peer has acknowledged). Raises `OSError` where it is no
    connected socket any more."""
    with closing(_socket.socket(fileno=os.dup(descriptor))) as sock:  # not one that may be patched: it would set the descriptor's flags
        found: dict[str, Any] = {
            "transport": "unix" if sock.family == socket.AF_UNIX else "tcp",
            "local": _written(sock.getsockname()),
            "remote": _written(sock.getpeername()),
            "receive_queue": _queue(sock, _SIOCINQ),
            "send_queue": _queue(sock, _SIOCOUTQ),
        }
        return found | (_of_tcp(sock) if found["transport"] == "tcp" else {"state": _STATES[1]})


def _of_tcp(sock: Any) -> dict[str, Any]:
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    state = {"state": _STATES[info[0]] if info[0] < len(_STATES) else str(info[0])}
    if len(info) < _ACKED_AT + _BYTES.size:
        return state
    sent, received = _BYTES.unpack_from(info, _ACKED_AT)
    return {**state, "received": received, "sent": max(0, sent - 1)}  # the first that is acknowledged is no byte, but the SYN


def _queue(sock: Any, request: int) -> int:
    return int(struct.unpack("i", fcntl.ioctl(sock.fileno(), request, bytes(4)))[0])


def _written(address: Any) -> str:
    if isinstance(address, tuple):
        return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"
    if isinstance(address, bytes):  # a name in the abstract namespace
        return ""
    return os.path.basename(address) if address.startswith(_BY_DESCRIPTOR) else str(address)
