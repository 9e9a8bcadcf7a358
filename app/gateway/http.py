"""What is served over plain HTTP: the paths of the API, and the pages for every other. One barrier a request.

What the operations do is in `app/gateway/api.py`; how an answer is written, in `app/gateway/answers.py`.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from app.errors import Busy, Forbidden, HandoffError
from app.gateway.answers import Answer, StartResponse, problem
from app.gateway.api import Api, Request
from app.gateway.authority import Authority
from app.gateway.doors import Doors, preflight
from app.gateway.identity import Grant
from app.gateway.pages import Pages
from app.gateway.peer import PEER
from app.gateway.probes import METRICS, Probes
from app.gateway.probes import PATHS as PROBES
from app.gateway.problems import HttpRefusal
from app.gateway.rates import Limits, place_of
from app.log import untold

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

    def __init__(self, api: Api, probes: Probes, doors: Doors, pages: Pages, authority: Authority, limits: Limits) -> None:
        self._api = api
        self._probes = probes
        self._authority = authority
        self._limits = limits
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
        except Exception as error:
            log.error("request-failed: %s %s", environ["REQUEST_METHOD"], path[0], exc_info=untold(error))
            return problem(HandoffError("something went wrong here; the log has it"))

    def _probe(self, environ: Mapping[str, Any], name: str) -> Answer:
        """Whether it lives and is ready may be asked by everyone that comes this far; what it does (`METRICS`) is for those who may ask at
        all: whoever has to show who he is shows it here, and is an operator. Raises `Forbidden`."""
        if name == METRICS and not self._let_in(environ).operator:
            raise Forbidden("metrics are shown to operators; let the token of the one that scrapes them be one")
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
        grant = self._let_in(environ)
        return operation(self._api, Request(environ, environ[PEER], grant, path[1] if len(path) > 1 else ""))

    def _let_in(self, environ: Mapping[str, Any]) -> Grant:
        """Who asks. The address is counted before it is known who that is, the owner after."""
        if not self._limits.any:
            return self._authority.of_request(environ)
        self._limits.check("", place_of(environ.get("REMOTE_ADDR", "")))
        grant = self._authority.of_request(environ)
        self._limits.check_owner(grant.subject)
        return grant
