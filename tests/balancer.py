"""A TCP load balancer between a gateway and its workers: one connection to each target in turn, until the test breaks the network."""

import itertools
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

Target = tuple[str, int]


class Balancer:
    """Listens on a free port until the block ends."""

    def __init__(self, targets: Sequence[Target]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._turns = itertools.cycle(targets)
        self._carrying = True
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join()

    def cut(self) -> None:
        """End every connection, and each new one at once, until `mend`."""
        with self._lock:
            self._carrying = False
            for pair in self._pairs:
                _end(*pair)
            self._pairs.clear()

    def mend(self) -> None:
        """Carry again."""
        self._carrying = True

    def _accept(self) -> None:
        with suppress(OSError):  # the end of the block
            while True:
                self._join(self._listener.accept()[0])

    def _join(self, client: socket.socket) -> None:
        with self._lock:
            try:
                server = socket.create_connection(next(self._turns)) if self._carrying else None
            except OSError:  # nobody is there
                server = None
            if server is None:
                client.close()
                return
            self._pairs.append((client, server))
        thread = threading.Thread(target=_carry_both, args=(client, server))
        self._threads.append(thread)
        thread.start()


def _carry_both(client: socket.socket, server: socket.socket) -> None:
    with client, server:
        back = threading.Thread(target=_carry, args=(server, client))
        back.start()
        _carry(client, server)
        back.join()


def _carry(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    _end(source, sink)


def _end(*sockets: socket.socket) -> None:
    for each in sockets:
        with suppress(OSError):  # ended already
            each.shutdown(socket.SHUT_RDWR)


HAPROXY = shutil.which("haproxy")


@contextmanager
def haproxy(targets: Sequence[Target], directory: Path) -> Iterator[str]:
    """HAProxy before these, a connection to each in turn; its address. It is handed a socket that listens already: no port is guessed."""
    assert HAPROXY is not None
    with socket.create_server(("127.0.0.1", 0)) as listener:
        servers = "\n".join(f"  server s{number} {host}:{port}" for number, (host, port) in enumerate(targets))
        config = directory / "haproxy.cfg"
        config.write_text(
            "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n"
            f"listen workers\n  bind fd@{listener.fileno()}\n  balance roundrobin\n{servers}\n"
        )
        process = subprocess.Popen([HAPROXY, "-q", "-db", "-f", str(config)], pass_fds=[listener.fileno()])
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            process.kill()
            process.wait()
