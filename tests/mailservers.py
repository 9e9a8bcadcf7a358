"""SMTP servers for tests: one that others wrote (aiosmtpd), and one that does exactly what a script says, right or wrong."""

import asyncio
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult

FULL = ("8BITMIME", "SMTPUTF8")
USER, PASSWORD = "ann@x.org", "p:ss/ wörd 🎉"


@dataclass
class Received:
    """What aiosmtpd took: one envelope a mail, and how many connections they came on. `greylist`: how often each address is put off yet."""

    port: int = 0
    envelopes: list[Any] = field(default_factory=list)
    connections: set[Any] = field(default_factory=set)
    delay: float = 0.0
    greylist: Counter[str] = field(default_factory=Counter)
    logins: list[tuple[str, str]] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)

    @property
    def url(self) -> str:
        """Of a server without TLS and users."""
        return f"smtp://127.0.0.1:{self.port}"

    def recipients(self) -> list[str]:
        """Who got a mail, in order."""
        return [recipient for envelope in self.envelopes for recipient in envelope.rcpt_tos]

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        """Called by aiosmtpd once a mail."""
        await asyncio.sleep(self.delay)
        self.connections.add(session.peer)
        self.envelopes.append(envelope)
        return "250 taken"

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:  # noqa: N802
        """Whoever is called nobody does not live here, and who is on the greylist has to come again."""
        self.asked[address] += 1
        if self.greylist[address] > 0:
            self.greylist[address] -= 1
            return "451 4.7.1 greylisted, come again"
        if address.startswith("nobody"):
            return "550 5.1.1 no such user"
        envelope.rcpt_tos.append(address)
        return "250 fine"

    def authenticate(self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        """There is one user."""
        self.logins.append((mechanism, data.login.decode()))
        return AuthResult(success=(data.login.decode(), data.password.decode()) == (USER, PASSWORD), handled=False)


@contextmanager
def aiosmtpd_server(*, tls: ssl.SSLContext | None = None, port: int = 0, smtputf8: bool = True, **options: Any) -> Iterator[Received]:
    """aiosmtpd on a free port, in a thread of its own; `tls`: from the first byte; `options` are aiosmtpd's."""
    received = Received()
    options |= {"enable_SMTPUTF8": smtputf8, "decode_data": False, "authenticator": received.authenticate}
    loop, over = asyncio.new_event_loop(), asyncio.Event()

    sessions: list[Any] = []

    def session() -> Any:
        sessions.append(SMTP(received, loop=loop, **options))
        return sessions[-1]

    async def serve() -> None:
        server = await loop.create_server(session, "127.0.0.1", port, ssl=tls)
        received.port = server.sockets[0].getsockname()[1]
        listening.set()
        await over.wait()
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:  # connections that are still kept
            task.cancel()
        await asyncio.sleep(0)
        for transport in [transport for one in sessions for transport in (one.transport, one._original_transport) if transport]:
            transport.abort()
        await asyncio.sleep(0)

    listening = threading.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert listening.wait(10)
        yield received
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(10)
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


class Peer:
    """One connection, as the script of a server sees it."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._file = sock.makefile("rb")

    def say(self, *lines: str) -> None:
        self.socket.sendall("".join(line + "\r\n" for line in lines).encode())

    def hear(self, command: str) -> str:
        """The next line, which must begin so."""
        line = self._file.readline().decode().removesuffix("\r\n")
        assert line.upper().startswith(command), f"{line!r} came, not {command}"
        return line

    def over(self) -> bool:
        """Whether the client closes without another word."""
        return self._file.read() == b""

    def greet(self, *extensions: str) -> None:
        self.say("220 hello")
        self.hear("EHLO")
        self.say("250-test", *(f"250-{extension}" for extension in extensions), "250 HELP")

    def message(self) -> bytes:
        """The lines up to the dot."""
        lines = list(iter(self._file.readline, b".\r\n"))
        assert b"" not in lines
        return b"".join(lines)

    def take(self, answer: str = "250 taken") -> bytes:
        """One whole mail."""
        for command, reply in (("MAIL FROM:", "250 ok"), ("RCPT TO:", "250 ok"), ("DATA", "354 go on")):
            self.hear(command)
            self.say(reply)
        message = self.message()
        self.say(answer)
        return message

    def start_tls(self, tls: ssl.SSLContext) -> None:
        """Go on in TLS; what came in clear and was not read is forgotten."""
        self._file.close()
        self.socket = tls.wrap_socket(self.socket, server_side=True)
        self._file = self.socket.makefile("rb")

    def close(self) -> None:
        """Both the socket and the file that reads from it, or it would stay open."""
        self._file.close()
        self.socket.close()


class ScriptedServer:
    """Plays one script a connection, in order; a connection too many is closed. Leaving the block raises what a script raised."""

    def __init__(self, *scripts: Callable[[Peer], object]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._scripts = scripts
        self._threads: list[threading.Thread] = []
        self.errors: list[BaseException] = []
        self.results: list[object] = []
        self.connections = 0
        self.port: int = self._listener.getsockname()[1]
        self.url = f"smtp://127.0.0.1:{self.port}"
        self._accepting = threading.Thread(target=self._accept)

    def __enter__(self) -> "ScriptedServer":
        self._accepting.start()
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join(10)
        self._listener.close()
        self.finish()

    def finish(self) -> None:
        """Wait for the scripts that play; raises what one of them raised."""
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive(), "a script still plays"
        if self.errors:
            raise self.errors[0]

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:  # the block was left
                return
            sock.settimeout(10)
            script = self._scripts[self.connections] if self.connections < len(self._scripts) else None
            self.connections += 1
            if script is None:
                sock.close()
                continue
            thread = threading.Thread(target=self._play, args=(script, sock))
            self._threads.append(thread)
            thread.start()

    def _play(self, script: Callable[[Peer], object], sock: socket.socket) -> None:
        with closing(Peer(sock)) as peer:
            try:
                self.results.append(script(peer))
            except BaseException as error:  # noqa: BLE001  # raised again in the test's own thread
                self.errors.append(error)
