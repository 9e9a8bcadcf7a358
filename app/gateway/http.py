"""What is served over plain HTTP: the paths of the API, and the pages for every other. One barrier a request.

What the operations do is in `app/gateway/api.py`; how an answer is written, in `app/gateway/answers.py`.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from app.errors import Busy, HandoffError
from app.gateway.answers import Answer, StartResponse, problem
from app.gateway.api import Api, Request
from app.gateway.doors import Doors, owner_of, preflight
from app.gateway.pages import Pages
from app.gateway.peer import PEER
from app.gateway.probes import METRICS, Probes
from app.gateway.probes import PATHS as PROBES
from app.gateway.problems import HttpRefusal

log = logging.getLogger(__name__)

Operation = Callable[[Api, Request], Answer]

ROUTES: Mapping[tuple[str, ...], Mapping[str, Operation]] = {
    ("tasks",): {"GET": Api.list, "POST": Api.submit},
    ("tasks", ""): {"GET": Api.show, "DELETE": Api.cancel},
    ("tasks", "", "events"): {"GET": Api.events},
    ("functions",): {"GET": Api.functions},
    ("openapi.json",): {"GET": Api.description},
}
"""The operations by path and method; an empty part stands for the id of a task. HEAD goes where GET does."""

_FIRST: Final = PROBES | {path[0] for path in ROUTES}


class Site:
    """The WSGI application of a gateway."""

    def __init__(self, api: Api, probes: Probes, doors: Doors, pages: Pages) -> None:
        self._api = api
        self._probes = probes
        self._doors = doors
        self._pages = pages

    def __call__(self, environ: Mapping[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request; raises `Refused` where the pages do, and `ConnectionError` where nobody is there to be answered."""
        path = environ["PATH_INFO"].split("/")[1:]
        if not path or path[0] not in _FIRST:
            return self._pages(environ, start_response)
        answer = self._answer(environ, path)
        return answer.send(start_response, *self._doors.welcome(environ), head_only=environ["REQUEST_METHOD"] == "HEAD")

    def _answer(self, environ: Mapping[str, Any], path: list[str]) -> Answer:
        try:
            self._doors.check(environ)
            if path[0] in PROBES and len(path) == 1:
                return self._probe(environ, path[0])
            return self._operate(environ, path)
        except HandoffError as error:
            return problem(error)
        except ConnectionError:
            raise
        except Exception:
            log.exception("request-failed: %s %s", environ["REQUEST_METHOD"], path[0])
            return problem(HandoffError("something went wrong here; the log has it"))

    def _probe(self, environ: Mapping[str, Any], name: str) -> Answer:
        """Whether it lives and is ready may be asked by everyone that comes this far; what it does (`METRICS`) is for those who may ask at
        all: whoever has to show who he is shows it here."""
        if name == METRICS:
            owner_of(environ)
        return self._probes.answer(environ, name)

    def _operate(self, environ: Mapping[str, Any], path: list[str]) -> Answer:
        if self._api.left:
            raise Busy("this gateway is leaving; ask again in a moment")
        operations = ROUTES.get(tuple(part if place != 1 else "" for place, part in enumerate(path)))
        if operations is None:
            raise HttpRefusal("not_found", "nothing is at this path; /openapi.json says what there is")
        method = environ["REQUEST_METHOD"]
        allowed = ", ".join([*operations, *(["HEAD"] if "GET" in operations else []), "OPTIONS"])
        if method == "OPTIONS":
            return Answer("204 No Content", b"", "", (("Allow", allowed), *preflight(environ, allowed)))
        operation = operations.get("GET" if method == "HEAD" else method)
        if operation is None:
            raise HttpRefusal("method_not_allowed", f"this takes {allowed}", ("Allow", allowed))
        task_id = path[1] if len(path) > 1 else ""
        return operation(self._api, Request(environ, environ[PEER], owner_of(environ), environ.get("REMOTE_ADDR", ""), task_id))
