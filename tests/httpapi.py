"""The HTTP API as a test uses it: requests on one kept connection, and a task's events as they come."""

import http.client
import json
import socket
import time
import uuid
from collections.abc import Iterator
from typing import Any, NamedTuple, Self

from tests.harness import Server


class Reply(NamedTuple):
    """One answer: names of headers in lower case, the body decoded where it is JSON."""

    status: int
    headers: dict[str, str]
    body: Any

    @property
    def code(self) -> str:
        """Of a problem document, which it must be."""
        assert self.headers["content-type"] == "application/problem+json", self
        assert self.body["status"] == self.status
        return str(self.body["code"])


def port_of(server: Server) -> int:
    return int(server.http_url.rstrip("/").rsplit(":", 1)[1])


class HttpClient:
    """One connection, opened again where the server has closed it."""

    def __init__(self, server: Server, timeout: float = 10.0) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port_of(server), timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        """Send bytes as they are, anything else as JSON; `_` in the name of a header stands for `-`."""
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            fields = {"Content-Type": "application/json"} | fields
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.connection.request(method, path, body, fields)
        response = self.connection.getresponse()
        data: Any = response.read()
        kind = response.headers.get("Content-Type", "")
        if data and kind in ("application/json", "application/problem+json"):
            data = json.loads(data)
        return Reply(response.status, {name.lower(): value for name, value in response.headers.items()}, data)

    def submit(self, function: str, args: Any = None, wait: float = 0, **more: Any) -> Reply:
        """Send a task, and wait for its end where that is wanted."""
        body = {"function": function, **({} if args is None else {"args": args}), **more}
        return self.ask("POST", "/tasks", body, **({"Prefer": f"wait={wait}"} if wait else {}))

    def until(self, task_id: str, *states: str) -> Any:
        """The task, once it is in one of these states."""
        deadline = time.monotonic() + 10
        while (view := self.ask("GET", f"/tasks/{task_id}").body)["state"] not in states:
            assert time.monotonic() < deadline, view
            time.sleep(0.01)
        return view


class EventStream:
    """The events of one task, on a connection of its own. `comments` counts the signs of life."""

    def __init__(self, server: Server, task_id: str, after: int = 0, timeout: float = 10.0, **headers: str) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port_of(server), timeout=timeout)
        seen = {"Last-Event-ID": str(after)} if after else {}
        self.connection.request("GET", f"/tasks/{task_id}/events", headers=seen | headers)
        self.response = self.connection.getresponse()
        self.comments = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.response.close()
        self.connection.close()

    def __iter__(self) -> Iterator[Any]:
        """Events, decoded, until the stream ends; each with the number that it came under."""
        number = ""
        while line := self.response.readline():
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name == "id":
                number = value
            elif name == "data":
                event = json.loads(value)
                assert number == str(event["seq"])
                yield event
            self.comments += line == b":\n"

    def cut(self) -> None:
        """Break the connection as a network does."""
        sock = self.connection.sock or self.response.fp.raw._sock  # type: ignore[attr-defined]
        sock.shutdown(socket.SHUT_RDWR)
        self.__exit__()


def fresh() -> str:
    return uuid.uuid4().hex
