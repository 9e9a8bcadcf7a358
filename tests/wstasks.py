"""Tasks over a WebSocket, as a test sends and follows them."""

import uuid
from typing import Any

from tests.effects import said_of
from tests.harness import WsClient


def fresh() -> str:
    return uuid.uuid4().hex


def submit(client: WsClient, function: str, args: Any = None, **options: Any) -> str:
    """Send a task under a fresh id, or the one given."""
    task_id = str(options.pop("id", "")) or fresh()
    client.send({"id": task_id, "function": function, **({} if args is None else {"args": args}), **options})
    return task_id


def story(client: WsClient, task_id: str) -> list[Any]:
    """All that this client is told of a task, once it is over."""
    client.final(task_id)
    return said_of(client.messages, task_id)


def started(client: WsClient, task_id: str) -> Any:
    return client.until(lambda message: message.get("id") == task_id and message.get("event") == "started")
