"""A gateway of one's own that does what it is told to: the first word of a message says what. Loaded by servers that tests start."""

import gc
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gevent

from app.errors import Forbidden
from app.gateway import Connection, call, on_close, on_connect, on_message

CLOSED = Path("closed")
"""Where each connection that was closed leaves a line, in the directory where the server runs: its path and its code."""


def echo(ws: Connection, text: str) -> None:
    ws.send(text)


def size(ws: Connection, text: str) -> None:
    ws.send(str(len(text)))


def fail(ws: Connection, text: str) -> None:
    raise RuntimeError("told to fail")


def leave(ws: Connection, text: str) -> None:
    sys.exit(text)


def block(ws: Connection, text: str) -> None:
    """Blocks as many seconds as it is told, then says so."""
    time.sleep(float(text))
    ws.send("blocked")


def count(ws: Connection, text: str) -> None:
    """Says how many of these run at once, after a while."""
    running.append(ws.id)
    time.sleep(0.1)
    ws.send(str(running.count(ws.id)))
    running.remove(ws.id)


def flood(ws: Connection, text: str) -> None:
    """Sends so many messages of 64 KiB."""
    for _ in range(int(text)):
        ws.send("x" * 65536)
    ws.send("flooded")


def chorus(ws: Connection, text: str) -> None:
    """Many greenlets send at once, each messages of one letter."""
    voices = [gevent.spawn(sing, ws, letter, int(text)) for letter in "abcdefgh"]
    gevent.joinall(voices, raise_error=True)
    ws.send("sung")


def sing(ws: Connection, letter: str, times: int) -> None:
    for number in range(times):
        ws.send(letter * (number * 977 % 70000 + 1))


def close(ws: Connection, text: str) -> None:
    code, _, reason = text.partition(" ")
    ws.send("before")
    ws.close(int(code), reason)


def task(ws: Connection, text: str) -> None:
    """Hands a task off, and says what became of it."""
    ws.send(str(call(text, {"seconds": 0.05} if text == "sleep" else {"said": text})))


def garbage(ws: Connection, text: str) -> None:
    """Says how many objects only the garbage collector could free."""
    ws.send(str(gc.collect()))


def mail(ws: Connection, text: str) -> None:
    """Slow, so that many of them wait."""
    time.sleep(0.2)
    call("send_mail", {"from": "a@example.org", "to": "b@example.org", "contents": "told to"})


running: list[str] = []
COMMANDS = {function.__name__: function for function in (echo, size, fail, leave, block, count, flood, chorus, close, task, mail, garbage)}


@on_message(binary=True)
def obey(ws: Connection, message: str | bytes) -> None:
    """Binary messages go back as they are."""
    if isinstance(message, bytes):
        ws.send(message)
        return
    command, _, text = message.partition(" ")
    COMMANDS[command](ws, text)


@on_connect
def admit(ws: Connection, environ: Mapping[str, Any]) -> bool:
    """The query says what to do with the connection."""
    query = environ["QUERY_STRING"]
    if query == "forbidden":
        raise Forbidden("not with this query")
    if query == "broken":
        raise RuntimeError("told to break")
    if query == "slow":
        time.sleep(30)
    if query == "greeted":
        ws.send("welcome")
    if query == "unwelcome":
        ws.close(4001, "not you")
    return query != "refused"


@on_close
def note(ws: Connection) -> None:
    """Leaves a line in `CLOSED`."""
    with CLOSED.open("a") as lines:
        lines.write(f"{ws.close_code}\n")
