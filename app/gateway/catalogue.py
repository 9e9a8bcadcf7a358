"""The functions as the HTTP API knows them: whether arguments can be those of a function, before anything is accepted; the description
of the API. Both are made anew where the catalogue of the workers has changed."""

from typing import Any

from app import wire
from app.dispatch import Dispatcher
from app.gateway import openapi
from app.gateway.schemas import Arguments
from app.messages import Submit


class Catalogue:
    """Of one dispatcher. `max_message` is the most bytes that a body may have."""

    def __init__(self, dispatcher: Dispatcher, max_message: int) -> None:
        self._dispatcher = dispatcher
        self._max_message = max_message
        self._functions: list[dict[str, Any]] = []
        self._arguments: dict[str, Arguments] = {}
        self._openapi = b""

    def check(self, submit: Submit) -> None:
        """Raises `BadArguments` for what no worker takes; of a function that is not in the catalogue, nothing is known."""
        self._refresh()
        arguments = self._arguments.get(submit.function)
        if arguments is not None:
            arguments.check(submit.args)

    def openapi(self) -> bytes:
        """The description, in JSON."""
        self._refresh()
        if not self._openapi:
            self._openapi = wire.encode_decoded(openapi.document(self._functions, self._arguments, self._max_message))
        return self._openapi

    def _refresh(self) -> None:
        functions = self._dispatcher.describe()["functions"]
        if functions != self._functions:
            self._functions = functions
            self._arguments = {entry["name"]: Arguments(entry.get("params", [])) for entry in functions}
            self._openapi = b""
