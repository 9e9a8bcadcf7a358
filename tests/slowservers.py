"""Servers that let a client wait: each says the first thing that its protocol has to say, but only after a while. Stand-ins where what
is tried out is how a client waits, and not what it is told."""

import socket
import threading
from contextlib import suppress
from typing import Self

GREETINGS = {
    "smtp": b"220 slow.example.org\r\n",
    "ftp": b"220 slow\r\n",
    "pop3": b"+OK slow\r\n",
    "silent": b"",
}
ANSWERS = {
    "http": b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nslow",
    "ldap": bytes.fromhex("300c0201ff61070a010004000400"),  # a bind that succeeded; the message's number is put in
}


class SlowServers:
    """One for each protocol. Those of `ANSWERS` want to be asked first; `silent` hangs up, having said nothing."""

    def __init__(self) -> None:
        self.seconds = 0.0
        """For how long each lets a client wait; may be set at any time."""
        self._over = threading.Event()
        self._listeners = {name: socket.create_server(("127.0.0.1", 0)) for name in (*GREETINGS, *ANSWERS)}
        self.ports: dict[str, int] = {name: listener.getsockname()[1] for name, listener in self._listeners.items()}

    def __enter__(self) -> Self:
        for name, listener in self._listeners.items():
            threading.Thread(target=self._serve, args=(listener, name), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for listener in self._listeners.values():
            listener.shutdown(socket.SHUT_RDWR)  # wakes whoever accepts
            listener.close()

    def _serve(self, listener: socket.socket, name: str) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:  # it is over
                return
            threading.Thread(target=self._let_wait, args=(client, name), daemon=True).start()

    def _let_wait(self, client: socket.socket, name: str) -> None:
        with client, suppress(OSError):  # it may be killed
            client.settimeout(30)
            asked = client.recv(65536) if name in ANSWERS else b""
            self._over.wait(self.seconds)
            if name == "silent":
                return
            answer = GREETINGS.get(name) or ANSWERS[name]
            client.sendall(answer.replace(b"\xff", asked[4:5]) if name == "ldap" else answer)
            while client.recv(65536):  # whatever it says before it leaves
                pass
