"""What can be done over HTTP: submit, list, show, follow, cancel, describe. Each takes a request and gives an answer, or raises.

Paths, methods and the barrier are in `app/gateway/http.py`; what becomes of a task is decided in `app/dispatch.py`.
"""

import contextlib
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl

from app import wire
from app.dispatch import Dispatcher
from app.errors import BadRequest, Busy, IdConflict, UnknownTask
from app.gateway import sse
from app.gateway.answers import Answer, json_answer
from app.gateway.callers import Caller, Callers
from app.gateway.catalogue import Catalogue
from app.gateway.follow import Follower
from app.gateway.identity import Grant
from app.gateway.peer import Peer
from app.gateway.problems import HttpRefusal
from app.gateway.views import Views
from app.gateway.wanted import read_wanted
from app.journal import Stored
from app.messages import IDENTIFIER, Submit, new_id, read_submit
from app.settings import Settings
from app.task import Task, key_of

OK: Final = "200 OK"
ACCEPTED: Final = "202 Accepted"
MOST_WAIT: Final = 60.0
"""Seconds that a request with `Prefer: wait` is held at most."""

_OF_A_CONNECTION: Final = ("events", "on_disconnect")
_WAIT: Final = re.compile(r'wait\s*=\s*"?(\d{1,9})"?')
_COUNT: Final = re.compile(r"[0-9]{1,15}")


@dataclass(frozen=True, slots=True)
class Request:
    """One request that was let in. `task_id` is the one in its path, not checked."""

    environ: Mapping[str, Any]
    peer: Peer
    grant: Grant
    task_id: str = ""

    @property
    def owner(self) -> str:
        """Whose tasks it is about."""
        return self.grant.subject

    @property
    def caller(self) -> str:
        """Who it is counted for: its owner, or where nobody is asked who it is, its address."""
        return f"owner {self.owner}" if self.owner else str(self.environ.get("REMOTE_ADDR", ""))


class Api:
    """The operations, for one gateway process. `left`: nothing is answered any more."""

    def __init__(self, dispatcher: Dispatcher, settings: Settings) -> None:
        self.left = False
        self._dispatcher = dispatcher
        self._callers = Callers(settings.max_unfinished)
        self._settings = settings
        self._catalogue = Catalogue(dispatcher, settings.max_message)
        self._views = Views(dispatcher)

    def grants(self) -> set[Grant]:
        """Those of the requests that wait."""
        return self._callers.grants()

    def send_away(self) -> None:
        """End the requests that wait and whose grants are over."""
        self._callers.send_away()

    def leave(self) -> None:
        """Answer those who wait, with what there is; the journal is about to be closed."""
        self.left = True
        self._callers.close()

    def submit(self, request: Request) -> Answer:
        """Accept a task, once it is in the journal; with `Prefer: wait`, its end, where that comes in time."""
        submit = _named(self._read_task(request), request.environ.get("HTTP_IDEMPOTENCY_KEY"))
        patience = _patience(request.environ.get("HTTP_PREFER", ""))
        request.grant.check()  # the body may have taken its time
        request.grant.check_call(submit.function)
        self._catalogue.check(submit)
        self._check_room(request, submit.id)
        follower = Follower(self._dispatcher.journal, request.owner, submit.id)
        try:
            caller = self._callers.of(request.caller)
            task = self._dispatcher.submit(request.owner, caller, submit, follower)
            own = task is not None and follower in task.watchers
            if task is not None and own:
                caller.count(task)
            follower.follow(task)
            follower.confirm(submit, own)
            if patience:
                with contextlib.suppress(Busy):  # it is accepted, whether there is room to wait or not
                    self._wait(request, follower, patience)
        finally:
            follower.close()
        view = self._views.show(request.owner, submit.id)
        headers = (("Location", f"/tasks/{submit.id}"), *_applied(patience))
        return Answer(OK if view.over else ACCEPTED, view.body, headers=headers)

    def _read_task(self, request: Request) -> Submit:
        kind = request.environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
        if kind != "application/json" or request.environ.get("HTTP_CONTENT_ENCODING", "identity") != "identity":
            raise HttpRefusal("unsupported_media_type", "send Content-Type: application/json, not encoded", ("Accept", "application/json"))
        body = request.peer.read_body(self._settings.max_message)
        message = wire.decode(body) if body else None
        if type(message) is not dict or "function" not in message:
            raise BadRequest('the body wants a JSON object: {"function": …, "args": …}')
        for key in _OF_A_CONNECTION:
            if key in message:
                raise BadRequest(f'"{key}" is for connections that stay, as a WebSocket does; leave it out')
        priority = message.get("priority")
        if type(priority) is float and priority.is_integer():  # to JSON Schema, 5.0 is an integer
            message["priority"] = int(priority)
        return read_submit(message)

    def _check_room(self, request: Request, task_id: str) -> None:
        """Where there is none, a task that is sent again is still found."""
        if self._callers.is_full(request.caller) and not self._is_known(request.owner, task_id):
            raise Busy(f"{self._settings.max_unfinished} tasks of yours are unfinished; wait for some of them")

    def _is_known(self, owner: str, task_id: str) -> bool:
        try:
            self._dispatcher.find(owner, task_id)
        except UnknownTask:
            return False
        return True

    def _wait(self, request: Request, follower: Follower, seconds: float) -> None:
        """Hold the request until the task is over, or for that long."""
        deadline = time.monotonic() + seconds
        caller = self._callers.hold(request.caller, request.grant, follower, request.peer)
        try:
            while True:
                follower.read()
                request.grant.check()
                left = deadline - time.monotonic()
                if follower.over or left <= 0:
                    return
                follower.wait(left)
        finally:
            self._callers.let_go(caller, follower, request.peer)

    def list(self, request: Request) -> Answer:
        """One's own tasks, newest first."""
        query = _query(request, "limit", "before", "state", "function", "id")
        numbers = {name: _whole(query[name], name) for name in ("limit", "before") if name in query}
        tasks, before = self._dispatcher.search(request.owner, *read_wanted({**query, **numbers}))
        return json_answer(OK, {"tasks": tasks} if before is None else {"tasks": tasks, "before": before})

    def show(self, request: Request) -> Answer:
        """One task: its state, and its result or its error where it is over; with `Prefer: wait`, as soon as it is."""
        _query(request)
        task_id = _checked(request.task_id)
        patience = _patience(request.environ.get("HTTP_PREFER", ""))
        task = self._find(request, task_id)
        if task is not None and patience:
            follower = Follower(self._dispatcher.journal, request.owner, task_id)
            follower.follow(task)
            try:
                self._wait(request, follower, patience)
            finally:
                follower.close()
        return Answer(OK, self._views.show(request.owner, task_id).body, headers=_applied(patience))

    def _find(self, request: Request, task_id: str) -> Task | None:
        """As `Dispatcher.find`, once the journal has the task."""
        task = self._dispatcher.find(request.owner, task_id)
        if task is None or task.kept:
            return task
        follower = Follower(self._dispatcher.journal, request.owner, task_id)
        follower.follow(task)
        try:
            follower.settle()
        finally:
            follower.close()
        return self._dispatcher.find(request.owner, task_id)

    def cancel(self, request: Request) -> Answer:
        """Cancel a task; one that is over stays as it is. What became of it is said later."""
        _query(request)
        task_id = _checked(request.task_id)
        self._find(request, task_id)
        self._dispatcher.cancel(request.owner, task_id)
        return Answer(ACCEPTED, self._views.show(request.owner, task_id).body)

    def events(self, request: Request) -> Answer:
        """Everything that was and will be said of a task after `Last-Event-ID`; 204 where nothing will. With `Prefer: wait`, until then."""
        _query(request)
        task_id = _checked(request.task_id)
        after = _number_seen(request.environ.get("HTTP_LAST_EVENT_ID", "0"))
        journal = self._dispatcher.journal
        task = self._dispatcher.find(request.owner, task_id)
        if task is None and not _any_after(journal.read(key_of(request.owner, task_id), after, 1)):
            return Answer("204 No Content", b"", "")
        if request.environ["REQUEST_METHOD"] == "HEAD":
            return Answer(OK, (), sse.MEDIA_TYPE)
        follower = Follower(journal, request.owner, task_id)
        caller = self._callers.hold(request.caller, request.grant, follower, request.peer)
        follower.follow(task, after)
        patience = _patience(request.environ.get("HTTP_PREFER", ""))
        headers = (("X-Accel-Buffering", "no"), *_applied(patience), *_closing(request))
        return Answer(OK, self._stream(request, caller, follower, patience), sse.MEDIA_TYPE, headers)

    def _stream(self, request: Request, caller: Caller, follower: Follower, patience: float | None) -> sse.Stream:
        def done() -> None:
            follower.close()
            self._callers.let_go(caller, follower, request.peer)

        request.peer.be_patient(self._settings.stall_timeout)
        until = math.inf if patience is None else time.monotonic() + patience
        return sse.Stream(follower, self._settings.ping_interval, until, done)

    def functions(self, request: Request) -> Answer:
        """The catalogue."""
        _query(request)
        return json_answer(OK, request.grant.shown(self._dispatcher.describe()))

    def description(self, request: Request) -> Answer:
        """This interface, in OpenAPI 3.1."""
        _query(request)
        return Answer(OK, self._catalogue.openapi(request.grant))


def _named(submit: Submit, key: str | None) -> Submit:
    """The submit with an id: its own, the one in an Idempotency-Key header (a string as in RFC 8941, or bare), or a new one."""
    if key is None:
        return submit if submit.id else submit._replace(id=new_id())
    given = key.strip()
    if len(given) > 1 and given[0] == given[-1] == '"':
        given = given[1:-1]
    if not IDENTIFIER.match(given):
        raise BadRequest("Idempotency-Key wants 1 to 64 characters of A-Z a-z 0-9 _ -")
    if submit.id and submit.id != given:
        raise IdConflict(submit.id)
    return submit._replace(id=given)


def _patience(preferences: str) -> float | None:
    """How long the caller prefers to wait (RFC 7240), in seconds, if it says. What it says besides is passed over."""
    found = (_WAIT.fullmatch(preference.partition(";")[0].strip().lower()) for preference in preferences.split(","))
    return next((min(float(match[1]), MOST_WAIT) for match in found if match is not None), None)


def _applied(patience: float | None) -> tuple[tuple[str, str], ...]:
    return () if patience is None else (("Preference-Applied", f"wait={patience:.0f}"),)


def _query(request: Request, *known: str) -> dict[str, str]:
    """The parameters of the query, each at most once and none but these."""
    try:
        pairs = parse_qsl(request.environ.get("QUERY_STRING", ""), keep_blank_values=True, errors="strict", max_num_fields=20)
    except ValueError:
        raise BadRequest("the query cannot be read") from None
    query = dict(pairs)
    if len(query) != len(pairs) or not query.keys() <= set(known):
        raise BadRequest(f"the query takes {', '.join(known) or 'nothing'}, each once")
    return query


def _whole(text: str, name: str) -> int:
    if not _COUNT.fullmatch(text):
        raise BadRequest(f"{name} wants a whole number")
    return int(text)


def _checked(task_id: str) -> str:
    """The id in a path; one that can be no id is unknown."""
    if not IDENTIFIER.match(task_id):
        raise UnknownTask(task_id[:64])
    return task_id


def _number_seen(text: str) -> int:
    if not _COUNT.fullmatch(text):
        raise BadRequest("Last-Event-ID wants the id of an event")
    return int(text)


def _any_after(stored: Stored | None) -> bool:
    return stored is not None and bool(stored.events)


def _closing(request: Request) -> tuple[tuple[str, str], ...]:
    """Before HTTP/1.1 only the end of the connection ends an answer of unknown length."""
    return () if request.environ["SERVER_PROTOCOL"] == "HTTP/1.1" else (("Connection", "close"),)
