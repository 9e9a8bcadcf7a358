"""Sends away whoever may no longer be here: once a second it reads the tokens again where they have changed, asks one's own `authenticate`
again, about connections and requests that wait, where that is due, and ends those whose grants are over."""

import logging
from typing import Any, Final

import gevent
from gevent.pool import Pool

from app.gateway.admission import UNAUTHORIZED
from app.gateway.api import Api
from app.gateway.authority import Authority
from app.gateway.identity import Grant
from app.gateway.websocket import Connection
from app.log import untold

log = logging.getLogger(__name__)

EVERY: Final = 1.0
"""Seconds between two rounds: how long a token that was taken back may still be used."""

_ASKED_AT_ONCE: Final = 20
_AT_ONCE: Final = 500


class Warden:
    """Of one gateway process. `connections` are its WebSockets; `api` has the HTTP requests that wait."""

    def __init__(self, authority: Authority, connections: set[Any], api: Api) -> None:
        self._authority = authority
        self._connections = connections
        self._api = api
        self._asking = Pool(_ASKED_AT_ONCE)

    def run(self) -> None:
        """Round after round, until killed."""
        while True:
            gevent.sleep(EVERY)
            try:
                self.look()
            except Exception as error:  # the next round may fare better, and there is nobody else to do it
                log.error("warden-failed", exc_info=untold(error))

    def look(self) -> None:
        """One round; others run in between."""
        self._authority.look()
        for grant in self._api.grants():
            self._ask_again(grant)
        self._api.send_away()
        for number, connection in enumerate(list(self._connections), 1):
            self._check(connection)
            if number % _AT_ONCE == 0:
                gevent.sleep(0)

    def _check(self, connection: Connection) -> None:
        grant = connection.grant
        if grant is None or connection.closed:
            return
        if not grant.is_good:
            connection.close(UNAUTHORIZED, "the token is not good any more")
        else:
            self._ask_again(grant)

    def _ask_again(self, grant: Grant) -> None:
        if self._authority.is_due(grant) and not self._asking.full():
            self._asking.spawn(self._authority.ask_again, grant)
