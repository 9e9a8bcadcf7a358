"""One browser connection that speaks the full form: parse, call, answer, one barrier a message.

Which of its messages are let through is decided in `app/gateway/admission.py`; how it is shown its tasks, in `app/gateway/shown.py`. The
bytes of the connection are in `app/gateway/websocket.py`; what becomes of a task is decided in `app/dispatch.py`.
"""

import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import Any

from app import wire
from app.dispatch import Dispatcher
from app.errors import BadRequest, Busy, HandoffError, UnknownTask
from app.gateway.admission import Admission
from app.gateway.identity import Grant
from app.gateway.shown import Shown, Watch, wants
from app.gateway.wanted import read_wanted
from app.gateway.watch import WatchFeed
from app.gateway.websocket import Connection
from app.log import untold
from app.messages import check_id, new_id, read_submit, read_whole, readable_id, refusal
from app.settings import Settings
from app.task import Task

log = logging.getLogger(__name__)

TEXT = 1
UNSUPPORTED_DATA = 1003


class Session(Shown):
    """Speaks the full form on one connection until it ends. There is one of these for every idle browser: it holds as little as possible,
    and no cycle."""

    __slots__ = ("_admission", "_feed", "_max_unfinished")

    def __init__(self, dispatcher: Dispatcher, connection: Connection, settings: Settings, admission: Admission | None) -> None:
        """`admission` lets its messages through, or not; without one, all of them."""
        super().__init__(dispatcher, connection, connection.subject, settings.max_unsent)
        self._max_unfinished = settings.max_unfinished
        self._admission = admission
        self._feed: WatchFeed | None = None

    def run(self) -> None:
        """Read and answer; blocks until the connection is over."""
        connection = self._connection
        try:
            while (messages := connection.read()) is not None:
                for opcode, message in messages:
                    if opcode != TEXT:
                        connection.close(UNSUPPORTED_DATA, "text messages only")
                        return
                    self._handle(message)
                    if self.outbox.unsent > self.half_full:
                        self.outbox.wait_open(self.half_full)
        finally:
            self._leave()

    def _handle(self, text: str | bytes) -> None:
        message: Any = None
        try:
            message = wire.decode_text(text)  # type: ignore[arg-type]
            if type(message) is not dict:
                raise BadRequest("a message wants a JSON object")
            if self._admission is None:
                self._act(message)
            elif "token" in message:
                self._token(message)
            else:
                self._admission.check(message)
                self._act(message)
        except HandoffError as error:
            self.queue(refusal(error, readable_id(message)))
        except Exception as error:
            log.error("message-failed", exc_info=untold(error), extra={"connection": self._connection.id})
            self.queue(refusal(HandoffError("something went wrong here; the log has it"), readable_id(message)))

    def _act(self, message: dict[str, Any]) -> None:
        if "function" in message:
            self._submit(message)
            return
        for key, answer in _REQUESTS.items():
            if key in message:
                answer(self, message)
                return
        raise BadRequest('no "function"; send {"function": …, "args": …}, or {"describe": true} to see what there is')

    def _submit(self, message: dict[str, Any]) -> None:
        submit = read_submit(message)
        self._check_room(submit.id)
        if not submit.id:
            submit = submit._replace(id=new_id())
        watch = Watch(self, submit.id, final_only=submit.final_only, submit=submit)
        task = self._dispatcher.submit(self.owner, self, submit, watch)
        if task is None:
            return
        if watch in task.watchers or wants(submit, task):
            self._watch(watch, task)
        else:  # which of the two is the task of this id, the journal is about to say
            watch.task = task
            self.catch_up(watch)

    def _check_room(self, task_id: str) -> None:
        if len(self.watches) >= self._max_unfinished and task_id not in self.watches:
            raise Busy(f"{self._max_unfinished} tasks of this connection are unfinished; wait for some of them")

    def _watch(self, watch: Watch, task: Task) -> None:
        before = self.watches.get(task.id)
        if before is not None:
            self.unwatch(before)
            watch.submit = watch.submit or before.submit  # what it said of a disconnect still holds
        self.watches[task.id] = watch
        watch.task = task
        if watch not in task.watchers:
            task.watchers.append(watch)
            self.catch_up(watch)

    def _cancel(self, message: dict[str, Any]) -> None:
        if message["cancel"] is not True:
            raise BadRequest('"cancel" wants true')
        self._dispatcher.cancel(self.owner, check_id(message.get("id")))

    def _attach(self, message: dict[str, Any]) -> None:
        task_id = check_id(message.get("id"))
        after = read_whole(message, "attach", 0, 1 << 53)
        self._check_room(task_id)
        task = self._dispatcher.find(self.owner, task_id)
        if task is None:
            self.catch_up(Watch(self, task_id, seen=after))
        else:
            seen = min(after, task.seq) if task.kept else after  # whatever it said it has seen, it is told the end
            self._watch(Watch(self, task_id, seen=seen), task)

    def _list(self, message: dict[str, Any]) -> None:
        entries, before = self._dispatcher.search(self.owner, *read_wanted(message["list"]))
        self.queue(wire.encode({"list": entries, **({} if before is None else {"before": before})}))

    def _watch_all(self, message: dict[str, Any]) -> None:
        if type(message["watch"]) is not bool:
            raise BadRequest('"watch" wants true or false')
        self._unwatch_all()
        if message["watch"]:
            self._feed = WatchFeed(self._dispatcher, self._grant, self.outbox, self.queue, self.half_full)
            self._feed.start()
        else:
            self.queue(b'{"watch":null}')

    def _unwatch_all(self) -> None:
        if self._feed is not None:
            self._feed.stop()
            self._feed = None

    def _describe(self, message: dict[str, Any]) -> None:
        self.queue(wire.encode({"describe": self._grant.shown(self._dispatcher.describe())}))

    def _ping(self, message: dict[str, Any]) -> None:
        self.queue(wire.encode({"pong": message["ping"]}))

    def _token(self, message: dict[str, Any]) -> None:
        if len(message) != 1:
            raise BadRequest('"token" comes alone in its message; what else there is may follow it at once')
        grant = self._grant if self._admission is None else self._admission.admit(message["token"])
        self.owner = grant.subject
        self.queue(wire.encode({"token": {"subject": grant.subject or None, "operator": grant.operator}}))

    @property
    def _grant(self) -> Grant:
        grant = self._connection.grant
        assert grant is not None  # the admission lets nothing through before there is one
        return grant

    def _leave(self) -> None:
        """The connection is over: its tasks go on, but for those that were to end with it."""
        if self._admission is not None:
            self._admission.close()
        self._unwatch_all()
        for watch in list(self.watches.values()):
            self.unwatch(watch)
            if watch.submit is not None and watch.submit.cancel_on_disconnect:
                with contextlib.suppress(UnknownTask):  # over, and forgotten
                    self._dispatcher.cancel(self.owner, watch.id)


_REQUESTS: Mapping[str, Callable[[Session, dict[str, Any]], None]] = {
    "cancel": Session._cancel,
    "attach": Session._attach,
    "list": Session._list,
    "describe": Session._describe,
    "watch": Session._watch_all,
    "ping": Session._ping,
    "token": Session._token,
}
