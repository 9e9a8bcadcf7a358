"""One browser connection that speaks the full form: parse, call, answer, one barrier a message; and what it is shown of its tasks.

A reader that does not keep up is not sent live events beyond its bound: they are read again from the journal as its socket drains. The
bytes of the connection are in `app/gateway/websocket.py`; what becomes of a task is decided in `app/dispatch.py`.
"""

import contextlib
import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import gevent

from app import wire
from app.dispatch import Dispatcher
from app.errors import BadRequest, Busy, DiskFull, HandoffError, IdConflict, Unavailable, UnknownTask
from app.gateway.wanted import read_wanted
from app.gateway.watch import WatchFeed
from app.gateway.websocket import Connection
from app.journal import Said, Stored
from app.messages import Submit, check_id, new_id, read_submit, read_whole, readable_id, refusal
from app.settings import Settings
from app.task import Task, asks_for, key_of

log = logging.getLogger(__name__)

TEXT = 1
UNSUPPORTED_DATA = 1003
REPLAY_AT_ONCE = 200
"""Events read from the journal at a time while a task is shown again."""

_ASK_AGAIN = 0.005


class Watch:
    """One task as one connection sees it. `seen` is the number of the last event that was sent; while it is not `live`, events are not
    taken as they come but read from the journal."""

    __slots__ = ("final_only", "id", "live", "seen", "session", "submit", "task")

    def __init__(self, session: "Session", task_id: str, *, final_only: bool = False, seen: int = 0, submit: Submit | None = None) -> None:
        self.session = session
        self.id = task_id
        self.final_only = final_only
        self.seen = seen
        self.live = True
        self.submit = submit
        self.task: Task | None = None

    def deliver(self, seq: int, line: bytes, final: bool) -> None:
        """As `Watcher.deliver`; to a reader that is behind, or was shown nothing of what came before, only once it has caught up."""
        if not self.live or seq <= self.seen:
            return
        session = self.session
        if session.outbox.unsent > session.half_full or (seq > self.seen + 1 and not self.final_only):
            session.catch_up(self)
            return
        self.seen = seq
        if final:
            session.watches.pop(self.id, None)
            session.queue(line)
        elif not self.final_only:
            session.queue(line)

    def already_known(self) -> None:
        """As `Watcher.already_known`: show what the journal has, if it is the same task."""
        self.task = None
        self.session.catch_up(self)

    def refused(self, error: HandoffError) -> None:
        """As `Watcher.refused`."""
        self.task = None
        self.session.refuse(self, error)


class Session:
    """Speaks the full form on one connection until it ends. `watches` are the tasks that it is shown and that are not over, by id. There is
    one of these for every idle browser: it holds as little as possible, and no cycle."""

    __slots__ = ("_behind", "_connection", "_dispatcher", "_feed", "_max_unfinished", "_owner", "half_full", "outbox", "queue", "watches")

    def __init__(self, dispatcher: Dispatcher, connection: Connection, settings: Settings) -> None:
        self._dispatcher = dispatcher
        self._connection = connection
        self._owner = connection.owner
        self.outbox = connection.outbox
        self.queue = connection.queue
        self._max_unfinished = settings.max_unfinished
        self.half_full = settings.max_unsent // 2
        self.watches: dict[str, Watch] = {}
        self._behind: deque[Watch] | None = None
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

    def catch_up(self, watch: Watch) -> None:
        """Show it from the journal, as the socket drains, until it is up to date."""
        watch.live = False
        if self._behind is None:
            self._behind = deque()
            gevent.spawn(self._catch_up, self._behind)
        self._behind.append(watch)

    def _handle(self, text: str | bytes) -> None:
        message: Any = None
        try:
            message = wire.decode_text(text)  # type: ignore[arg-type]
            if type(message) is not dict:
                raise BadRequest("a message wants a JSON object")
            if "function" in message:
                self._submit(message)
            else:
                self._request(message)
        except HandoffError as error:
            self.queue(refusal(error, readable_id(message)))
        except Exception:
            log.exception("message-failed", extra={"connection": self._connection.id})
            self.queue(refusal(HandoffError("something went wrong here; the log has it"), readable_id(message)))

    def _request(self, message: dict[str, Any]) -> None:
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
        task = self._dispatcher.submit(self._owner, self, submit, watch)
        if task is None:
            return
        if watch in task.watchers or _asks_for(submit, task):
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
            self._unwatch(before)
            watch.submit = watch.submit or before.submit  # what it said of a disconnect still holds
        self.watches[task.id] = watch
        watch.task = task
        if watch not in task.watchers:
            task.watchers.append(watch)
            self.catch_up(watch)

    def _unwatch(self, watch: Watch) -> None:
        del self.watches[watch.id]
        watch.live = False
        if watch.task is not None and watch in watch.task.watchers:
            watch.task.watchers.remove(watch)

    def _cancel(self, message: dict[str, Any]) -> None:
        if message["cancel"] is not True:
            raise BadRequest('"cancel" wants true')
        self._dispatcher.cancel(self._owner, check_id(message.get("id")))

    def _attach(self, message: dict[str, Any]) -> None:
        task_id = check_id(message.get("id"))
        after = read_whole(message, "attach", 0, 1 << 53)
        self._check_room(task_id)
        task = self._dispatcher.find(self._owner, task_id)
        if task is None:
            self.catch_up(Watch(self, task_id, seen=after))
        else:
            seen = min(after, task.seq) if task.kept else after  # whatever it said it has seen, it is told the end
            self._watch(Watch(self, task_id, seen=seen), task)

    def _list(self, message: dict[str, Any]) -> None:
        entries, before = self._dispatcher.search(self._owner, *read_wanted(message["list"]))
        self.queue(wire.encode({"list": entries, **({} if before is None else {"before": before})}))

    def _watch_all(self, message: dict[str, Any]) -> None:
        if type(message["watch"]) is not bool:
            raise BadRequest('"watch" wants true or false')
        self._unwatch_all()
        if message["watch"]:
            self._feed = WatchFeed(self._dispatcher, self._owner, self.outbox, self.queue, self.half_full)
            self._feed.start()
        else:
            self.queue(b'{"watch":null}')

    def _unwatch_all(self) -> None:
        if self._feed is not None:
            self._feed.stop()
            self._feed = None

    def _describe(self, message: dict[str, Any]) -> None:
        self.queue(wire.encode({"describe": self._dispatcher.describe()}))

    def _ping(self, message: dict[str, Any]) -> None:
        self.queue(wire.encode({"pong": message["ping"]}))

    def _catch_up(self, behind: deque[Watch]) -> None:
        try:  # in a greenlet that exists only while there is something to show again
            while behind:
                watch = behind.popleft()
                try:
                    self._replay(watch)
                except DiskFull as error:  # the journal has no room to put it in order
                    self.refuse(watch, error)
        except Unavailable:
            log.debug("the connection is over; its tasks are not", extra={"connection": self._connection.id})
        finally:
            self._behind = None

    def _replay(self, watch: Watch) -> None:
        """Show what the journal has; then take events as they come. Between the last read and that, nothing may be missed."""
        while True:
            self.outbox.wait_below(self.half_full)
            was_kept = watch.task is None or watch.task.kept > 0
            stored = self._dispatcher.journal.read(key_of(self._owner, watch.id), watch.seen, REPLAY_AT_ONCE)
            if stored is None and was_kept:
                self.refuse(watch, UnknownTask(watch.id))  # forgotten meanwhile
                return
            if stored is None and _contends(watch):
                gevent.sleep(_ASK_AGAIN)
                continue
            if stored is not None and watch.submit is not None and not _asks_for(watch.submit, stored):
                self.refuse(watch, IdConflict(watch.id))
                return
            for said in stored.events if stored is not None else ():
                self.outbox.wait_below(self.half_full)
                self._show_again(watch, said)
            if _is_up_to_date(watch, stored):
                watch.live = True
                return

    def refuse(self, watch: Watch, error: HandoffError) -> None:
        """There is nothing to show: say why, and watch it no longer."""
        self.queue(refusal(error, watch.id))
        if self.watches.get(watch.id) is watch:
            del self.watches[watch.id]

    def _show_again(self, watch: Watch, said: Said) -> None:
        watch.seen, line, final = said
        if final or not watch.final_only:
            self.queue(line)
        if final:
            self.watches.pop(watch.id, None)

    def _leave(self) -> None:
        """The connection is over: its tasks go on, but for those that were to end with it."""
        self._unwatch_all()
        for watch in list(self.watches.values()):
            self._unwatch(watch)
            if watch.submit is not None and watch.submit.cancel_on_disconnect:
                with contextlib.suppress(UnknownTask):  # over, and forgotten
                    self._dispatcher.cancel(self._owner, watch.id)


def _is_up_to_date(watch: Watch, stored: Stored | None) -> bool:
    """Whether there is nothing more to read; where nothing is stored, the first commit is still to come."""
    if stored is not None and (len(stored.events) == REPLAY_AT_ONCE or stored.final or watch.task is None):
        return len(stored.events) < REPLAY_AT_ONCE
    return watch.task is None or watch.task.kept <= watch.seen


def _contends(watch: Watch) -> bool:
    """Whether it asks for something else than the task that came first, which the journal has not confirmed yet."""
    return watch.task is not None and watch.submit is not None and not _asks_for(watch.submit, watch.task)


def _asks_for(submit: Submit, stored: Stored | Task) -> bool:
    return asks_for(submit, stored.function, stored.args)


_REQUESTS: Mapping[str, Callable[[Session, dict[str, Any]], None]] = {
    "cancel": Session._cancel,
    "attach": Session._attach,
    "list": Session._list,
    "describe": Session._describe,
    "watch": Session._watch_all,
    "ping": Session._ping,
}
