"""One connection to a worker: lines in, parse, call, answer; one barrier a line. Three kinds of callers come by the same door:

the short form (answered in order, one line each), the full form (events by id), and gateways (their tasks outlive the connection).
What runs the tasks is the executor; what a gateway's tasks become without their connection is in `workers/claims.py`.
"""

import logging
import socket as stdlib_socket
from collections.abc import Callable, Mapping
from typing import Any

import gevent
from gevent.event import Event as Signal

from app import wire
from app.errors import BadRequest, Busy, HandoffError, IdConflict, TooLarge, UnknownTask
from app.heartbeat import memory
from app.labels import check_label
from app.log import untold
from app.messages import Event, Submit, check_id, event_line, read_placed, read_submit, read_whole, readable_id, refusal
from app.outbox import Outbox
from workers.attempt import Attempt
from workers.claims import Claimant, Claims
from workers.house import House
from workers.parting import part
from workers.short import ShortForm
from workers.sinks import FAR_BEHIND, DirectSink

log = logging.getLogger(__name__)

RECV = 64 * 1024


class Connection:
    """One socket, read until its end in the greenlet that calls `run`."""

    def __init__(self, sock: Any, house: House) -> None:
        self._socket = sock
        self._house = house
        self._buffer = wire.LineBuffer(house.max_line)
        self._outbox = Outbox(sock, house.turn, house.loop, self.close)
        self._sink = DirectSink(self._outbox, self._forget, house.executor.ends)
        self._attempts: dict[str, Attempt] = {}
        self._cancel_at_end: set[str] = set()
        self._claimant: Claimant | None = None
        self._claims = Claims()
        self._short = ShortForm(self._outbox, house.executor)
        self._over: Signal | None = None
        self.lines = 0
        """How many have come."""

    @property
    def of_gateway(self) -> bool:
        """Whether it is a gateway's, who claims its tasks."""
        return self._claimant is not None

    @property
    def idle(self) -> bool:
        """Whether nothing of this connection runs or waits."""
        return self._claimant is None and self.answered

    @property
    def answered(self) -> bool:
        """Whether all that was asked for on this connection's own behalf is answered, and the answers have left."""
        return not self._attempts and self._short.idle and (self._claimant is not None or not self._outbox.unsent)

    def run(self) -> None:
        """Read and answer until the connection ends; what runs then goes on, unless it was to end with its connection."""
        try:
            self._read()
            if self._claimant is None:
                self._finish()
        finally:
            if self._claimant is not None:
                self._claimant.lose(self._outbox)
            self._cancel_what_ends_with_it()
            self._outbox.close()
            self._socket.close()

    def close(self) -> None:
        """End it from our side: the reader sees the end of the stream."""
        try:
            self._socket.shutdown(stdlib_socket.SHUT_RD)
        except OSError:
            log.debug("closed already")

    def close_if_stalled(self, since: float) -> None:
        """End it where of what is unsent nothing has left since then: nobody reads it."""
        if self._outbox.unsent and self._outbox.progress_at < since:
            self._outbox.close()
            self.close()

    def _read(self) -> None:
        wait = gevent.get_hub().wait
        readable = self._house.loop.io(self._socket.fileno(), 1)
        begun = False
        try:
            while not self._buffer.overflowed:
                if begun:  # else there may be something that came with the TLS handshake
                    wait(readable)  # first, so that a peer that never pauses does not hold up the others
                data = self._socket.recv(RECV)
                if not data:
                    if self._buffer.take_rest():
                        self._answer(refusal(BadRequest("the last line was not ended by \\n; it was not run")))
                    return
                if not begun and wire.is_foreign(data):
                    self._answer(refusal(BadRequest("this port takes lines of JSON, no HTTP, and TLS only where that is set")))
                    return
                begun = True
                for line in self._buffer.feed(data):
                    self.lines += 1
                    self._handle(line)
                if self._short.full:
                    self._short.wait()
                if self._outbox.unsent > FAR_BEHIND and self._claimant is None:  # who does not read is not read from
                    self._outbox.wait_open(FAR_BEHIND)
        except OSError as error:
            log.debug("connection lost: %s", error)
            return
        finally:
            readable.close()
        self._short.answer(refusal(TooLarge("the line", self._house.max_line)))

    def _finish(self) -> None:
        """The caller has closed its side: what runs on its own behalf still gets its answers; then close in order."""
        self._cancel_what_ends_with_it()
        self._short.wait()
        while self._attempts:
            self._over = Signal()
            self._over.wait()
        self._outbox.wait_open(0)
        part(self._socket)

    def _cancel_what_ends_with_it(self) -> None:
        for task_id in list(self._cancel_at_end):
            self._house.executor.cancel(self._attempts[task_id])

    def _handle(self, line: bytes) -> None:
        """One line: parse, call, answer; whatever goes wrong is an answer too."""
        message: Any = None
        if self._claimant is not None and not self._claimant.speaks_on(self._outbox):
            return  # its gateway has come back on another connection, and was told what had come until then
        try:
            message = wire.decode(line) if self._claimant is None else wire.decode_checked(line)
            if type(message) is not dict:
                raise BadRequest("a line wants a JSON object")
            if "function" in message:
                self._submit(message)
            else:
                self._request(message)
        except HandoffError as error:
            self._answer(refusal(error, readable_id(message)))
        except Exception as error:
            log.error("line-failed", exc_info=untold(error))
            self._answer(refusal(HandoffError("something went wrong here; the log has it"), readable_id(message)))

    def _answer(self, line: bytes) -> None:
        """Answer a line that was refused: by its id, or in its order where it has none."""
        if line.startswith(b'{"id"'):
            self._outbox.put(line + b"\n")
        else:
            self._short.answer(line)

    def _request(self, message: dict[str, Any]) -> None:
        for key, answer in _REQUESTS.items():
            if key in message:
                answer(self, message)
                return
        raise BadRequest('no "function"; send {"function": …, "args": …}, or {"describe": true} to see what there is')

    def _submit(self, message: dict[str, Any]) -> None:
        if self._claimant is not None and "attempt" in message:
            self._submit_placed(self._claimant, read_placed(message))
            return
        submit = read_submit(message)
        if submit.delay:
            raise BadRequest('"delay" is for the gateway, which can keep a task; a worker runs it at once')
        if submit.id:
            self._submit_directly(submit)
        else:
            spec = self._house.registry.get(submit.function)
            self._short.add(spec, submit.args, *spec.bind(submit.args))

    def _submit_placed(self, claimant: Claimant, submit: Submit) -> None:
        """From a gateway: it has counted our slots, and has accepted the task, so a refusal is a report too."""
        house = self._house
        claimant.dispatches.add(submit.dispatch)
        if (submit.id, submit.attempt) in claimant.attempts:
            raise IdConflict(submit.id)  # never twice, whatever made it come twice
        try:
            spec = house.registry.get(submit.function)
            args, kwargs = spec.bind(submit.args)
        except HandoffError as error:
            claimant.refuse(submit.id, submit.seq, submit.attempt, error)
            return
        if house.draining or not house.executor.slots.take(spec):
            claimant.has_returned(submit.id, submit.attempt)
            busy = Busy("all slots of this worker are taken", 0.1).as_wire()
            self._outbox.put(wire.encode_line({"id": submit.id, "attempt": submit.attempt, "error": busy}))
            return
        attempt = Attempt(spec, submit.id, args, kwargs, claimant, attempt=submit.attempt)
        attempt.seq = submit.seq
        attempt.final_only = submit.final_only
        attempt.may_retry = True
        if spec.options.run_in == "process":
            attempt.raw = submit.args
        claimant.hold(attempt)
        house.executor.start(attempt)

    def _submit_directly(self, submit: Submit) -> None:
        if submit.id in self._attempts:
            raise IdConflict(submit.id)
        spec = self._house.registry.get(submit.function)
        args, kwargs = spec.bind(submit.args)
        if self._house.draining or not self._house.executor.slots.take_directly(spec):
            raise Busy("all slots of this worker are taken", 1.0)
        attempt = Attempt(spec, submit.id, args, kwargs, self._sink)
        attempt.final_only = submit.final_only
        attempt.raw = submit.args
        self._attempts[submit.id] = attempt
        if submit.cancel_on_disconnect:
            self._cancel_at_end.add(submit.id)
        self._house.executor.start(attempt)

    def _forget(self, attempt: Attempt) -> None:
        """A task of the full form is over; the last one lets a connection end whose caller has closed its side."""
        self._attempts.pop(attempt.label, None)
        self._cancel_at_end.discard(attempt.label)
        if not self._attempts and self._over is not None:
            self._over.set()

    def _cancel(self, message: dict[str, Any]) -> None:
        if message["cancel"] is not True:
            raise BadRequest('"cancel" wants true')
        self._house.executor.cancel(self._attempt(message))

    def _attempt(self, message: dict[str, Any]) -> Attempt:
        task_id = check_label(message.get("id"))
        if self._claimant is not None:
            attempt = self._claimant.attempts.get((task_id, read_whole(message, "attempt", 1, 1_000_000)))
        else:
            attempt = self._attempts.get(task_id)
        if attempt is None:
            raise UnknownTask(task_id)
        return attempt

    def _recall(self, message: dict[str, Any]) -> None:
        attempt = self._attempt(message)
        if self._claimant is not None and self._house.executor.recall(attempt):
            del self._claimant.attempts[attempt.label, attempt.attempt]
            self._claimant.has_returned(attempt.label, attempt.attempt)
            self._outbox.put(event_line(attempt.label, Event.RETURNED, attempt.seq, attempt.attempt) + b"\n")

    def _ack(self, message: dict[str, Any]) -> None:
        if self._claimant is None:
            raise BadRequest('"ack" is for gateways, which claim their tasks first')
        self._claimant.acknowledge(self._outbox, read_whole(message, "ack", 0, 1 << 53))

    def _describe(self, message: dict[str, Any]) -> None:
        self._outbox.put(wire.encode_line({"describe": self._house.describe()}))

    def _ping(self, message: dict[str, Any]) -> None:
        """A gateway also wants to know how this process is."""
        vitals = {"vitals": {"memory": memory()}} if message.get("vitals") is True and self._claimant is not None else {}
        self._outbox.put(wire.encode_line({"pong": message["ping"], **vitals}))

    def _claim(self, message: dict[str, Any]) -> None:
        """A gateway: what it claims is the first that it says on a connection."""
        if self._claimant is not None:
            raise BadRequest('"claim" comes once on a connection')
        claims = self._claims.take(message)
        if claims is None:
            return
        self._claimant = self._house.claimant(check_id(message.get("journal")))
        self._claimant.attach(self._outbox, claims)
        if self._house.draining:
            self._claimant.part()

    def _leaving(self, message: dict[str, Any]) -> None:
        """A gateway has heard that this process leaves."""
        if self._claimant is None:
            raise BadRequest('"leaving" is for gateways, which claim their tasks first')
        self._claimant.parted(self._outbox)


_REQUESTS: Mapping[str, Callable[[Connection, dict[str, Any]], None]] = {
    "cancel": Connection._cancel,
    "ack": Connection._ack,
    "recall": Connection._recall,
    "describe": Connection._describe,
    "ping": Connection._ping,
    "claim": Connection._claim,
    "leaving": Connection._leaving,
}
