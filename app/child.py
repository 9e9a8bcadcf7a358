"""One process of ours, seen from inside: what it is given, and how it is made ready between the fork and the first import. No gevent here.

The order after a fork matters, and is this: signals are blocked by the master around the fork, so that none is lost between the fork and
the reset; handlers are reset; the process is tied to the master's life; the master's own files and the other roles' listeners are closed;
signals are let in again (they end it, until the role has its own handlers); then the role runs, patches, and imports the application. It
leaves by `os._exit`, so that nothing of the master's is finalized twice.
"""

import contextlib
import ctypes
import faulthandler
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from app import log
from app.errors import SettingsError

EXIT_CRASHED = 1
EXIT_SETTINGS = 2
"""Something that was set cannot be used: an address, a task module. Trying again would not help."""
EXIT_NOT_BOOTED = 3
"""The role raised before it was ready."""
EXIT_ORPHANED = 4
"""The master is gone."""
EXIT_JOURNAL = 5
"""The disk has failed under the journal: what is on it is not known any more."""
EXIT_NOT_RUNNING = 7
"""Of a command: there is no server that it could be about."""

BOOTED, READY, LEAVING = b"=", b"+", b"-"
"""What a process says to its master."""

ORDERS = (signal.SIGHUP, signal.SIGUSR1)
"""Signals that never mean the end."""

_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15
_libc = ctypes.CDLL(None, use_errno=True)
_logger = logging.getLogger(__name__)


class Child:
    """What a role function is given.

    `name` is as `gateway` or `worker-1`; `listener` is listening, non-blocking, and shared with the processes of the same role; `lifeline`
    is a file descriptor at which end of file means that the master is gone (-1 where there is no master). `successor`: it is to take over
    from one that serves still. `say` is told `BOOTED`, `READY` and `LEAVING`.
    """

    __slots__ = ("_say", "is_ready", "lifeline", "listener", "name", "successor", "watcher")

    def __init__(
        self, name: str, listener: socket.socket, say: Callable[[bytes], object], lifeline: int = -1, successor: bool = False
    ) -> None:
        self.name = name
        self.listener = listener
        self.lifeline = lifeline
        self.successor = successor
        self.is_ready = False
        self.watcher: Any = None  # of the lifeline, where there is one: it watches as long as somebody holds it
        self._say = say

    def booted(self) -> None:
        """To be called when all of its code is loaded, where it then waits until the one before it lets go."""
        self._say(BOOTED)

    def ready(self) -> None:
        """To be called when this process serves; only the first call counts."""
        if not self.is_ready:
            self.is_ready = True
            self._say(READY)

    def leaving(self) -> None:
        """To be called when this process takes nothing more, and ends once what runs in it has ended."""
        self._say(LEAVING)


def die_with_parent(parent: int, number: int = signal.SIGKILL) -> None:
    """Have the kernel send this process a signal when `parent` ends. To be called in the child, of a fork that the parent's main thread
    made."""
    if _libc.prctl(_PR_SET_PDEATHSIG, number) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # it ended before the kernel knew
        os._exit(EXIT_ORPHANED)


def put_orders_off() -> None:
    """To be called before others can know of this process, by its lock or its PID file: until there are handlers, `ORDERS` wait."""
    signal.pthread_sigmask(signal.SIG_BLOCK, ORDERS)


def let_orders_in() -> None:
    """To be called when there are handlers."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ORDERS)


@dataclass(frozen=True, slots=True)
class Origin:
    """What a fork has to know of the master that it came from."""

    pid: int
    handled: tuple[int, ...]
    """Signals that the master handles."""
    fds: tuple[int, ...]
    """Files of the master's and of other roles, to be closed."""
    mask: set[int]
    """The signals to be blocked from now on."""


def live(child: Child, run: Callable[[Child], None], level: str, origin: Origin | None = None) -> NoReturn:
    """Be that child, to its end; to be called in a fresh fork with signals blocked, or without an origin in a process that nobody forked.

    The exit code says what to make of the end.
    """
    code = EXIT_CRASHED
    try:
        if origin is not None:
            _settle(origin)
        else:
            log.reopen_at_signal()
            let_orders_in()
        if sys.stderr is not None:
            faulthandler.enable()
        log.configure(child.name, level)
        _libc.prctl(_PR_SET_NAME, child.name.encode())  # in ps and top; at most 15 bytes are kept
        code = _run(child, run)
    except BaseException:
        _logger.exception("cannot live")
    finally:
        flush()
        os._exit(code)


def _settle(origin: Origin) -> None:
    """Turn a fork into a process of its own.

    It leads a process group: Ctrl-C reaches the master alone, which decides, and what this process starts can be ended with it.
    """
    signal.set_wakeup_fd(-1)
    for number in origin.handled:
        signal.signal(number, signal.SIG_DFL)  # and SIGPIPE stays ignored, as the interpreter has it
    log.reopen_at_signal()  # before signals are let in
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # a log line may go to the terminal from a background group
    os.setpgid(0, 0)
    die_with_parent(origin.pid)
    for fd in origin.fds:
        os.close(fd)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    signal.pthread_sigmask(signal.SIG_SETMASK, origin.mask)


def _run(child: Child, run: Callable[[Child], None]) -> int:
    try:
        run(child)
    except SettingsError as error:
        _logger.error("%s", error.message)
        return EXIT_SETTINGS
    except BaseException:  # the barrier: whatever ended the role is told, and then the process ends
        _logger.exception("ended by an error")
        return EXIT_CRASHED if child.is_ready else EXIT_NOT_BOOTED
    return 0


def hold_standard_files() -> None:
    """Open what is closed of stdin, stdout and stderr on nothing; or the next socket would be taken for it."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)


def flush() -> None:
    """Write out what is buffered; a reader that is gone is no reason to fail."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # closed by whoever started us
            with contextlib.suppress(OSError):
                stream.flush()
