"""What one's own gateway is written with: handlers are registered here by decorators, and `call` hands a task off and waits for its result.

The module named by the setting `handler` is imported once, while the process boots; what it registers is read-only from then on. How a
connection is served with it is found in `app/gateway/handler.py`.
"""

import importlib
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, overload

from app.errors import SettingsError, Unavailable


class Connection(Protocol):
    """What a handler can do with a connection, from any greenlet.

    `id` is short, for logs; `close_code` is what was given on closing, by either side (1006 where it was lost).
    """

    id: str
    path: str
    closed: bool
    close_code: int

    def send(self, message: str | bytes) -> None:
        """Send a text or a binary message; blocks while the peer is slow. Raises `Unavailable` once the connection is closed."""

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close it, after what was sent; codes 1000 to 1003, 1007 to 1014 and 3000 to 4999."""


OnMessage = Callable[[Any, Any], object]
OnConnect = Callable[[Any, Mapping[str, Any]], object]
OnClose = Callable[[Any], object]
Caller = Callable[[str, Any, float | None], Any]
AnyHandler = TypeVar("AnyHandler", bound=Callable[..., object])


@dataclass(slots=True)
class Hooks:
    """The handlers of this process, and what makes `call` work in it."""

    message: OnMessage | None = None
    connect: OnConnect | None = None
    close: OnClose | None = None
    binary: bool = False
    caller: Caller | None = None
    booted: bool = False

    def register(self, name: str, handler: AnyHandler) -> AnyHandler:
        """One handler of each name; raises `SettingsError` for a second one, or one that comes after the boot."""
        if self.booted:
            raise SettingsError(f"on_{name}: handlers are registered while the gateway boots; import them from the module of --handler")
        if getattr(self, name) is not None:
            raise SettingsError(f"on_{name} is registered twice; let one handler call the other")
        setattr(self, name, handler)
        return handler


HOOKS = Hooks()


@overload
def on_message(function: AnyHandler) -> AnyHandler: ...
@overload
def on_message(*, binary: bool = False) -> Callable[[AnyHandler], AnyHandler]: ...
def on_message(function: Any = None, *, binary: bool = False) -> Any:
    """Handle each message with `function(ws, message)`, in a greenlet of its own: plain blocking code holds nobody up.

    A text message is a `str`. With `binary`, binary messages come too, as `bytes`; without it they close the connection with 1003.
    """

    def register(handler: AnyHandler) -> AnyHandler:
        HOOKS.register("message", handler)
        HOOKS.binary = binary
        return handler

    return register if function is None else register(function)


def on_connect(function: AnyHandler) -> AnyHandler:
    """Ask `function(ws, environ)` about each new connection before it opens; it refuses by False or `errors.Forbidden` (403).

    `environ` is that of WSGI. What is sent here goes out as soon as the connection is open.
    """
    return HOOKS.register("connect", function)


def on_close(function: AnyHandler) -> AnyHandler:
    """Call `function(ws)` once, after the connection is over; handlers of its messages may still run."""
    return HOOKS.register("close", function)


def call(function: str, args: dict[str, Any] | list[Any] | None = None, timeout: float | None = None) -> Any:
    """Hand a task off and wait for its result; other greenlets run meanwhile.

    Raises `RemoteError` with the code where the task did not succeed, a `Refusal` where it was not accepted, and `Unavailable` where it
    takes more than `timeout` seconds (it goes on).
    """
    if HOOKS.caller is None:
        raise Unavailable("call works in a running gateway, from its handlers")
    return HOOKS.caller(function, args, timeout)


def load(module: str) -> Hooks:
    """Import the module of handlers; `call` works once there is a `caller`. Raises `SettingsError` with the module and the reason."""
    try:
        importlib.import_module(module)
    except (Exception, SystemExit) as error:  # a module may raise anything while it is imported
        raise SettingsError(f"cannot load the handler module {module}: {_reason(error)}") from error
    if HOOKS.message is None:
        raise SettingsError(f"the handler module {module} has no on_message; decorate a function(ws, message) with it")
    HOOKS.booted = True
    return HOOKS


def _reason(error: BaseException) -> str:
    if isinstance(error, SettingsError):
        return error.message
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [
        frame for frame in frames if not frame.filename.startswith("<frozen") and frame.filename not in (__file__, importlib.__file__)
    ]
    where = f" ({theirs[-1].filename}, line {theirs[-1].lineno})" if theirs else ""
    return f"{type(error).__name__}: {error}{where}"
