"""A TCP proxy between a real client and a real server, to break the network between them while both stay up. Part of `app/testing.py`."""

import socket
import threading
from contextlib import suppress
from typing import Self


class Proxy:
    """Listens on a free port until the block ends, and carries bytes to `target` while the line is not cut."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.target: tuple[str, int] | None = None
        self.refused = 0
        self._open = True
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def start(self) -> Self:
        """Begin to accept."""
        self._thread.start()
        return self

    def close(self) -> None:
        """End every connection, and accept nobody any more."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        self.cut()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def cut(self) -> None:
        """End every connection, without a word of farewell; new ones are refused, and counted, until `mend`."""
        with self._lock:
            self._open = False
            self.refused = 0
            for each in self._sockets:
                with suppress(OSError):  # its other end was faster
                    each.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Carry again."""
        self._open = True

    def _accept(self) -> None:
        with suppress(OSError):  # the end of the block
            while True:
                client = self._listener.accept()[0]
                server = self._reach()
                if server is not None:
                    self._join(client, server)
                else:
                    self.refused += 1
                    client.close()

    def _reach(self) -> socket.socket | None:
        """A connection to the target; None where the line is cut, or nobody is there."""
        if self._open and self.target is not None:
            with suppress(OSError):
                return socket.create_connection(self.target)
        return None

    def _join(self, client: socket.socket, server: socket.socket) -> None:
        with self._lock:
            self._sockets |= {client, server}
        for pair in ((client, server), (server, client)):
            threading.Thread(target=self._carry, args=pair, daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
        with self._lock:
            self._sockets.discard(source)
        source.close()
