"""`run.py tasks`: one's own tasks as a table, and all that was said of one of them."""

import sys
import time
from contextlib import suppress
from itertools import chain
from typing import Any

import click

from app.commands import exits, flags
from app.commands.output import live_table, print_error, print_json, print_table, to_json
from app.errors import RemoteError, Unavailable
from app.messages import FINAL_STATES, IDENTIFIER, State
from app.remote import MAX_LISTED, Session
from app.remote.task import RemoteTask

COLUMNS = ("id", "function", "state", "progress", "age")
MOST_PROGRESS = 50
"""Running tasks whose progress is asked for: each is a request of its own."""
_PATIENCE = 2.0
_EVERY = 1.0
_FINAL = frozenset(state.value for state in FINAL_STATES)

EPILOG = f"""\
\b
Examples:
  run.py tasks
  run.py tasks --state running --state queued --follow
  run.py tasks --function send_mails --json
  run.py tasks m1
  run.py tasks m1 --follow

With ID and --follow the exit status is that of the task:

{exits.HELP}"""


@flags.server_options("ws")
@click.command(epilog=EPILOG, short_help="your tasks, and what was said of one")
@click.argument("task_id", metavar="[ID]", required=False)
@click.option(
    "--state",
    "states",
    type=click.Choice([state.value for state in State]),
    multiple=True,
    help="Only those in this state; several allowed.",
)
@click.option("--function", "functions", metavar="NAME", multiple=True, help="Only those of this function; several allowed.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, metavar="N", help="The newest N of them.")
@click.option("--follow", is_flag=True, help="Go on showing what happens, until Ctrl-C, or the end of the one task.")
@flags.json_option
def tasks(
    task_id: str | None, states: tuple[str, ...], functions: tuple[str, ...], limit: int, follow: bool, as_json: bool, **where: str | None
) -> int:
    """List your tasks, newest first; with ID, show the events of that one."""
    if task_id is not None and not IDENTIFIER.match(task_id):
        raise click.UsageError("ID wants 1 to 64 characters of A-Z a-z 0-9 _ -")
    with flags.session(where, 60.0 if follow else 0.0) as session:
        if task_id is not None:
            return _Story(session, task_id, as_json).show(follow)
        chosen = _Chosen(session, frozenset(states), frozenset(functions), limit)
        if follow:
            with suppress(KeyboardInterrupt):
                _follow(chosen, as_json)
        elif as_json:
            for entry in chosen.entries():
                print_json(entry)
        else:
            print_table(COLUMNS, list(map(_row, chosen.entries())))
    return 0


class _Chosen:
    """The tasks that were asked for, as often as one looks."""

    def __init__(self, session: Session, states: frozenset[str], functions: frozenset[str], limit: int) -> None:
        self._session = session
        self._states = sorted(states)
        self._functions = sorted(functions) or [""]
        self._limit = limit

    def entries(self) -> list[dict[str, Any]]:
        """As the gateway lists them, with the last progress of those that run."""
        each = [self._session.list(self._limit, state=self._states, function=function) for function in self._functions]
        found = sorted(chain.from_iterable(each), key=lambda entry: -entry["order"])[: self._limit]
        running = [entry for entry in found if entry["state"] == State.RUNNING.value and "done" not in entry][:MOST_PROGRESS]
        asked = [(entry, self._session.attach(entry["id"], max(0, entry["seq"] - 1))) for entry in running]
        for entry, task in asked:
            entry |= _progress_of(task)
            self._session.release(task)
        return found


def _progress_of(task: RemoteTask) -> dict[str, Any]:
    """What its last event says of progress; nothing where that is another event, or nothing is heard in time."""
    try:
        event = next(task.events(_PATIENCE), {})
    except (RemoteError, Unavailable):  # over and forgotten meanwhile, or the gateway has something better to do
        return {}
    return {key: event[key] for key in ("done", "total", "note") if event.get("event") == "progress" and key in event}


def _follow(chosen: _Chosen, as_json: bool) -> None:
    """Until Ctrl-C: a table drawn again on a terminal, elsewhere each entry as it changes."""
    if sys.stdout.isatty() and not as_json:
        with live_table(COLUMNS) as redraw:
            while True:
                redraw(list(map(_row, chosen.entries())))
                time.sleep(_EVERY)
    shown: dict[str, dict[str, Any]] = {}
    while True:
        entries = chosen.entries()
        changed = [entry for entry in reversed(entries) if shown.get(entry["id"]) != entry]
        for entry in changed:
            print_json(entry) if as_json else print_table(COLUMNS, [_row(entry)])
        sys.stdout.flush()
        shown = {entry["id"]: entry for entry in entries}
        time.sleep(_EVERY)


def _row(entry: dict[str, Any]) -> tuple[str, ...]:
    return entry["id"], entry["function"], entry["state"], _progress(entry), age(time.time() - entry["accepted_at"])


def _progress(entry: dict[str, Any]) -> str:
    if "done" not in entry:
        return ""
    total, note = entry.get("total"), entry.get("note")
    return f"{entry['done']}{f'/{total}' if total is not None else ''}{f' {note}' if note else ''}"


def age(seconds: float) -> str:
    """In the largest unit that is full: 59s, 3m, 7h, 2d."""
    whole = max(0, int(seconds))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if whole >= size:
            return f"{whole // size}{unit}"
    return f"{whole}s"


class _Story:
    """All that was said of one task."""

    def __init__(self, session: Session, task_id: str, as_json: bool) -> None:
        self._session = session
        self._id = task_id
        self._as_json = as_json

    def show(self, follow: bool) -> int:
        """What was said until now, or to the end; the exit status."""
        last = None if follow else self._last()
        task = self._session.attach(self._id)
        final = ""
        try:
            for event in task.events(None if follow else _PATIENCE):
                print_json(event) if self._as_json else _print_event(event)
                final = event["event"]
                if last is not None and event["seq"] >= last:
                    break
        except RemoteError as error:
            print_json({"id": self._id, "error": error.as_wire()}) if self._as_json else print_error(f"{error.code}: {error.message}")
            return exits.REFUSED
        except Unavailable:
            if follow or not final:
                raise
        return exits.OF_EVENT[final] if follow else 0

    def _last(self) -> int | None:
        """The number of its last event; None where it is not known, or more begin so than are listed."""
        return next((entry["seq"] for entry in self._session.list(MAX_LISTED, id=self._id) if entry["id"] == self._id), None)


def _print_event(event: dict[str, Any]) -> None:
    rest = {key: value for key, value in event.items() if key not in ("id", "event", "seq")}
    print_table(("seq", "event", ""), [(str(event["seq"]), event["event"], _details(rest))])


def _details(rest: dict[str, Any]) -> str:
    return " ".join(f"{key}={to_json(value)}" for key, value in rest.items())
