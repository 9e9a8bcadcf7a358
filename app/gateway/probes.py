"""What is asked of a gateway by those who look after it: whether it lives, whether it is ready, and its metrics for Prometheus.

    /healthz   200 as long as this process answers
    /readyz    200, or 503 with the reason: no worker answers, the journal takes nothing, this gateway is leaving
    /metrics   every process of this data directory, from the scoreboard

The library that writes metrics is loaded with the first request for them: a gateway that nobody scrapes does without.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from app.dispatch import Dispatcher
from app.errors import Unavailable
from app.gateway.answers import Answer
from app.gateway.problems import HttpRefusal
from app.scoreboard import Board

_TEXT: Final = "text/plain; charset=utf-8"
METRICS: Final = "metrics"
PATHS: Final = frozenset({"healthz", "readyz", METRICS})


class Probes:
    """Of one gateway process. `board` tells the scoreboard; None while there is no room for one."""

    def __init__(self, dispatcher: Dispatcher, data_dir: Path, board: Callable[[], Board | None]) -> None:
        self._board = board
        self._dispatcher = dispatcher
        self._data_dir = data_dir
        self._by_path: Mapping[str, Callable[[Mapping[str, Any]], Answer]] = {
            "healthz": self._health,
            "readyz": self._readiness,
            METRICS: self._metrics,
        }

    def answer(self, environ: Mapping[str, Any], name: str) -> Answer:
        """One of `PATHS`. Raises a `HandoffError` where it cannot be had."""
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            raise HttpRefusal("method_not_allowed", "this takes GET, HEAD", ("Allow", "GET, HEAD"))
        return self._by_path[name](environ)

    def _health(self, environ: Mapping[str, Any]) -> Answer:
        return Answer("200 OK", b"ok\n", _TEXT)

    def _readiness(self, environ: Mapping[str, Any]) -> Answer:
        why = self._dispatcher.unready
        return Answer("503 Service Unavailable", f"{why}\n".encode(), _TEXT) if why else Answer("200 OK", b"ready\n", _TEXT)

    def _metrics(self, environ: Mapping[str, Any]) -> Answer:
        board = self._board()
        if board is None:
            raise Unavailable("this gateway has no scoreboard; its log says why")
        from app.gateway.metrics import expose

        body, media_type = expose(board.read(), self._data_dir, environ.get("HTTP_ACCEPT", ""))
        return Answer("200 OK", body, media_type)
