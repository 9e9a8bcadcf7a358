"""Between a connection and what it may do: it shows a token in its first message, if it has not with its upgrade; and each message after
that is let through, or not. Where nobody is asked who it is and nothing is limited, there is none of these.

    C: {"token": "…"}
    S: {"token": {"subject": "shop", "operator": false}}       the same again with another token of the same subject, before the first ends
    S: {"error": {"code": "unauthorized", "message": "…"}}     and the connection is closed with 4401
"""

from collections.abc import Mapping
from typing import Any, Final

import gevent

from app.errors import BadRequest, Unauthorized
from app.gateway.authority import Authority, strings_of
from app.gateway.identity import Grant
from app.gateway.rates import Limits, place_of
from app.gateway.websocket import Connection
from app.messages import refusal

UNAUTHORIZED: Final = 4401
"""The close code of a connection that has not said who it is, or may no longer be here: not to be tried again with the same token."""

_FREE: Final = ({"ping"}, {"id", "cancel"})
"""The keys of what is not counted: it costs next to nothing, and must not have to wait."""


class Admission:
    """Of one connection. `environ` is that of its upgrade; it is kept only where one's own `authenticate` will be asked with it."""

    __slots__ = ("_authority", "_connection", "_environ", "_limits", "_place", "_timer")

    def __init__(self, authority: Authority, limits: Limits, connection: Connection, environ: Mapping[str, Any], patience: float) -> None:
        """Begins to count the `patience` seconds in which it must have said who it is."""
        self._authority = authority
        self._limits = limits
        self._connection = connection
        self._place = place_of(environ.get("REMOTE_ADDR", ""))
        self._environ = strings_of(environ) if authority.reads_requests else {}
        self._timer: Any = None
        if connection.grant is None:
            self._timer = gevent.spawn_later(patience, connection.close, UNAUTHORIZED, f"no token came within {patience:g} s")

    def check(self, message: dict[str, Any]) -> None:
        """Whether this may be said now. Raises `Unauthorized`, `RateLimited` or `Forbidden`."""
        grant = self._connection.grant
        if grant is None:
            raise Unauthorized('say who you are first: {"token": "…"}')
        grant.check()
        if self._limits.any and message.keys() not in _FREE:
            self._limits.check(grant.subject, self._place)
        function = message.get("function")
        if type(function) is str:
            grant.check_call(function)

    def admit(self, token: Any) -> Grant:
        """It shows a token. One that is none ends the connection; one of another subject is a `BadRequest`."""
        connection = self._connection
        try:
            self._limits.check("", self._place)
            grant = self._authority.of_token(token, self._place, self._environ)
        except Unauthorized as error:
            connection.queue(refusal(error))
            connection.close(UNAUTHORIZED, error.message)
            raise
        if connection.grant is not None and connection.grant.subject != grant.subject:
            raise BadRequest("this token is of another subject; open another connection for it")
        connection.grant = grant
        self.close()
        return grant

    def close(self) -> None:
        """It is known who it is, or the connection is over."""
        if self._timer is not None:
            self._timer.kill(block=False)
            self._timer = None
