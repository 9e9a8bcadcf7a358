"""The functions as the HTTP API knows them: whether arguments can be those of a function, before anything is accepted; the description
of the API. Both are made anew where the catalogue of the workers has changed."""

from typing import Any, Final

from app import wire
from app.dispatch import Dispatcher
from app.gateway import openapi
from app.gateway.identity import Grant
from app.gateway.schemas import Arguments
from app.messages import Submit

_MOST_KEPT: Final = 16
"""Descriptions that are kept: one for each set of functions that somebody may call."""


class Catalogue:
    """Of one dispatcher. `max_message` is the most bytes that a body may have."""

    def __init__(self, dispatcher: Dispatcher, max_message: int) -> None:
        self._dispatcher = dispatcher
        self._max_message = max_message
        self._functions: list[dict[str, Any]] = []
        self._arguments: dict[str, Arguments] = {}
        self._openapi: dict[tuple[str, ...], bytes] = {}

    def check(self, submit: Submit) -> None:
        """Raises `BadArguments` for what no worker takes; of a function that is not in the catalogue, nothing is known."""
        self._refresh()
        arguments = self._arguments.get(submit.function)
        if arguments is not None:
            arguments.check(submit.args)

    def openapi(self, grant: Grant) -> bytes:
        """The description, in JSON, of what may be called."""
        self._refresh()
        functions = grant.shown({"functions": self._functions})["functions"]
        names = tuple(entry["name"] for entry in functions)
        if names not in self._openapi:
            if len(self._openapi) >= _MOST_KEPT:
                self._openapi.clear()
            self._openapi[names] = wire.encode_decoded(openapi.document(functions, self._arguments, self._max_message))
        return self._openapi[names]

    def _refresh(self) -> None:
        functions = self._dispatcher.describe()["functions"]
        if functions != self._functions:
            self._functions = functions
            self._arguments = {entry["name"]: Arguments(entry.get("params", [])) for entry in functions}
            self._openapi.clear()
