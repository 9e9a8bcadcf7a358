"""A mail server that takes as many mails as a test allows and makes the next one wait, so that a test can stop a task in mid-course.

Whether mails are right is tested against aiosmtpd (mailservers.py); this one only counts who got one.
"""

import socketserver
import threading
from collections import Counter
from typing import Self


class PostOffice:
    """Listens on a free port until the block ends. `received`: how many mails each address got; `waiting`: how many are not yet allowed."""

    def __init__(self) -> None:
        self.received: Counter[str] = Counter()
        self.waiting = 0
        self._changed = threading.Condition()
        self._allowed = self._times_emptied = 0
        self._server = _Server(("127.0.0.1", 0), _Client)
        self._server.office = self
        self.url = f"smtp://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.allow(1_000_000)
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def empty(self) -> None:
        """Forget what was received, and what waits; from here on nothing is allowed."""
        with self._changed:
            self.received.clear()
            self._allowed = 0
            self._times_emptied += 1
            self._changed.notify_all()

    def allow(self, mails: int) -> None:
        """Take so many mails since `empty`, in all."""
        with self._changed:
            self._allowed = mails
            self._changed.notify_all()

    def taken(self) -> int:
        """How many mails it has, those that wait not counted."""
        return sum(self.received.values())

    def take(self, address: str) -> None:
        """Wait until one more mail is allowed, then count it; what waited when all was forgotten does not count."""
        with self._changed:
            came = self._times_emptied
            self.waiting += 1
            self._changed.wait_for(lambda: came != self._times_emptied or self.taken() < self._allowed)
            self.waiting -= 1
            if came == self._times_emptied:
                self.received[address] += 1


class _Server(socketserver.ThreadingTCPServer):
    office: PostOffice
    daemon_threads = True
    block_on_close = False


class _Client(socketserver.StreamRequestHandler):
    """One SMTP session."""

    server: _Server
    disable_nagle_algorithm = True
    _recipient = ""

    def handle(self) -> None:
        self._say(b"220 hello")
        for line in self.rfile:
            command = line[:4].upper().strip()
            if command == b"EHLO":
                self._say(b"250-hello\r\n250 PIPELINING")
            elif command == b"RCPT":
                self._recipient = line.decode().partition("<")[2].partition(">")[0]
                self._say(b"250 ok")
            elif command == b"DATA":
                self._data()
            elif command == b"QUIT":
                return self._say(b"221 bye")
            else:
                self._say(b"250 ok")
        return None

    def _data(self) -> None:
        self._say(b"354 go on")
        for line in self.rfile:
            if line == b".\r\n":
                self.server.office.take(self._recipient)
                return self._say(b"250 taken")
        return None

    def _say(self, answer: bytes) -> None:
        self.wfile.write(answer + b"\r\n")
