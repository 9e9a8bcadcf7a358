"""`Session`: tasks handed to a gateway over a WebSocket from plain blocking code, whatever the connection does meanwhile.

    with Session("ws://127.0.0.1:8080/ws") as session:
        for event in session.run("send_mails", {"from": …, "to": […], "subject": …, "contents": …}):
            print(event)

The promises are those of `handoff.js`. When the connection is back, tasks that the gateway has not answered are sent again under their ids,
which never runs them twice; the others attach after the last `seq` heard: every event is told once, and in order. A task that was heard of
and that the gateway no longer knows may have run: it ends as `unknown_task`, and is sent again only where it was submitted as `idempotent`.

Works in threads, and in greenlets where gevent has patched. How that is kept is in `app/remote/conversation.py`, how a connection comes
back in `app/remote/connection.py`; blocking code that wants the workers themselves, unjournalled, takes `app/client.py`.
"""

from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

from app.messages import new_id
from app.remote.connection import RemoteConnection
from app.remote.conversation import Conversation
from app.remote.socket import Pace
from app.remote.task import RemoteTask

Args = dict[str, Any] | list[Any] | None
"""By name, by position, or none."""

MAX_LISTED = 1000
"""Tasks that a gateway lists in one answer."""


class Session:
    """A session with a gateway; may be shared by threads or greenlets. Its tasks go on at the gateway when it ends."""

    def __init__(self, url: str, *, give_up: float | None = None, pace: Pace | None = None) -> None:
        """`url` as `ws://host:port/ws`, `wss://…` or `unix:/path`. Raises `Unavailable` where nobody answers now.

        Later losses are mended; `give_up`: seconds without a connection after which whoever waits gets `Unavailable`, None for never.
        """
        self.url = url
        pace = pace or Pace()
        self._connection = RemoteConnection(url, pace, give_up)
        self._conversation = Conversation(self._connection.send, pace.gap)
        self._connection.start(self._conversation)

    def submit(
        self,
        function: str,
        args: Args = None,
        *,
        id: str = "",
        idempotent: bool = False,
        **options: Any,
    ) -> RemoteTask:
        """Hand a task over; does not wait for an answer. `options` are the wire's: `events`, `priority`, `delay`, `on_disconnect`.

        The same id with the same content gives the same task; with other content it raises `IdConflict`. `idempotent`: it may run again
        where the gateway has forgotten it. Raises `TypeError` or `ValueError` for arguments that JSON has no form for.
        """
        submit = {"id": id or new_id(), "function": function, **({} if args is None else {"args": args}), **options}
        return self._conversation.submit(submit, idempotent)

    def attach(self, id: str, after: int = 0) -> RemoteTask:
        """A task known by its id: what was said of it after event number `after`, then what is said live."""
        return self._conversation.attach(id, after)

    def run(self, function: str, args: Args = None, **options: Any) -> Iterator[dict[str, Any]]:
        """Run a task and give its events up to the final one; as `submit` and `RemoteTask.events`. Left early, the task goes on."""
        task = self.submit(function, args, **options)
        try:
            yield from task.events()
        finally:
            self.release(task)

    def call(self, function: str, args: Args = None, *, timeout: float | None = None, **options: Any) -> Any:
        """Run a task and return its result; raises as `RemoteTask.result`."""
        task = self.submit(function, args, **{"events": "final", **options})
        try:
            return task.result(timeout)
        finally:
            self.release(task)

    def release(self, task: RemoteTask) -> None:
        """Hear no more of a task; it goes on."""
        self._conversation.release(task)

    def describe(self, timeout: float | None = None) -> dict[str, Any]:
        """The catalogue: `functions`, each with `name`, `doc`, `params` and `options`. Raises `Unavailable` after `timeout` seconds."""
        description: dict[str, Any] = self._conversation.ask({"describe": True}, "describe", timeout)["describe"]
        return description

    def list(self, limit: int = 100, timeout: float | None = None, **wanted: Any) -> "list[dict[str, Any]]":
        """One's own tasks, newest first: at most `limit` of those that are `wanted`, as the wire has it: `state`, `function`, `id`. The
        gateway looks so far at once, and is asked again until all were looked at; raises `Unavailable` where one answer takes `timeout`."""
        found: list[dict[str, Any]] = []
        while True:
            message = {"list": {"limit": min(limit - len(found), MAX_LISTED), **wanted}}
            answer = self._conversation.ask(message, "list", timeout)
            found += answer["list"]
            if len(found) >= limit or "before" not in answer:
                return found
            wanted["before"] = answer["before"]

    def close(self) -> None:
        """Leave. Unfinished tasks go on, and whoever waits for them here gets `Unavailable`."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
