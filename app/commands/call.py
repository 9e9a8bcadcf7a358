"""`run.py call`: run one task, show what is said of it, and end with a status that says how it ended."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from app import wire
from app.client import TaskConnection
from app.commands import exits, flags
from app.commands.completing import function_names, parameter_names
from app.commands.output import Progress, print_error, print_json, print_note
from app.commands.running import DirectTask, Interrupts, Running
from app.errors import BadRequest, RemoteError, Unauthorized, Unavailable
from app.messages import Submit, check_id, new_id

EPILOG = f"""\
\b
Examples:
  run.py call send_mail from=a@x.org to=b@y.org contents=hi
  run.py call countdown start=3
  run.py call primes --args '{{"below": 1000000}}' --json
  run.py call report --args - < arguments.json
  ID=$(run.py call --detach primes below=50000000)
  run.py call --id "$ID" primes below=50000000

A value is read as JSON where it is JSON (3, true, null, [1,2], "3") and as text otherwise. The result is one JSON line on stdout;
each value of a generator is a line of its own, as it comes. Ctrl-C cancels the task and waits for its end; twice leaves at once.

{exits.HELP}"""


@flags.server_options("ws", *flags.WORKERS)
@click.command(epilog=EPILOG, short_help="run one task, and wait for it")
@click.argument("function", shell_complete=function_names)
@click.argument("pairs", metavar="[NAME=VALUE]...", nargs=-1, shell_complete=parameter_names)
@click.option("--args", "text_of_args", metavar="JSON", help="All arguments: an object, or an array by position; - reads them from stdin.")
@click.option("--id", "task_id", metavar="ID", help="The task's id. With the same id it never runs twice: this attaches to it.")
@click.option("--detach", is_flag=True, help="Print the id as soon as the task is accepted, and leave it to itself.")
@click.option("--direct", is_flag=True, help="Straight to the workers: not kept, not tried again.")
@click.option("--priority", type=click.IntRange(-1000, 1000), metavar="N", help="Of your own waiting tasks, the highest goes first.")
@click.option("--delay", type=click.FloatRange(0), metavar="SECONDS", help="Do not begin before.")
@click.option(
    "--give-up", type=click.FloatRange(0), default=60.0, show_default=True, metavar="SECONDS", help="How long a lost gateway is looked for."
)
@flags.json_option
def call(
    function: str,
    pairs: tuple[str, ...],
    text_of_args: str | None,
    task_id: str | None,
    detach: bool,
    direct: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Run FUNCTION with these arguments, and show what becomes of it."""
    where = {name: options.pop(name) for name in ("ws", *flags.WORKERS, "config")}
    give_up = options.pop("give_up")
    given = {name: value for name, value in options.items() if value is not None}
    if direct and (task_id or detach or given):
        raise click.UsageError("--direct goes with none of --id, --detach, --priority, --delay: those are the gateway's")
    submit = Submit(_checked_id(task_id) or new_id(), function, read_args(pairs, text_of_args))
    begin = _direct(where, submit) if direct else _through_gateway(where, give_up, submit, given)
    follow = _Follow(submit, as_json)
    try:
        with begin as task:
            return follow.accepted(task) if detach else follow.to_the_end(task)
    except KeyboardInterrupt:
        print_error(f"left; what became of it is said by: run.py tasks {submit.id}")
        return exits.LEFT
    except (RemoteError, Unauthorized) as error:
        return follow.not_done(error, exits.REFUSED)
    except Unavailable as error:
        return follow.not_done(error, exits.UNAVAILABLE)


def read_args(pairs: tuple[str, ...], text: str | None) -> dict[str, Any] | list[Any] | None:
    """The arguments that a command line means; raises `click.UsageError`."""
    args = None if text is None else _json(sys.stdin.read() if text == "-" else text)
    if args is not None and type(args) not in (dict, list):
        raise click.UsageError("--args wants an object (by name) or an array (by position)")
    if not pairs:
        return args
    if type(args) is list:
        raise click.UsageError("--args with an array goes with no NAME=VALUE")
    named = dict(map(_read_pair, pairs))
    if len(named) < len(pairs):
        raise click.UsageError("a NAME is given twice; write a list as NAME='[1, 2]'")
    return {**(args or {}), **named}


def _json(text: str) -> Any:
    try:
        return wire.decode_text(text)
    except BadRequest as error:
        raise click.UsageError(f"--args: {error.message}") from None


def _read_pair(pair: str) -> tuple[str, Any]:
    name, equals, text = pair.partition("=")
    if not name or not equals:
        raise click.UsageError(f"{pair!r} is no argument; write NAME=VALUE")
    try:
        return name, wire.decode_text(text)
    except BadRequest:
        return name, text


def _checked_id(task_id: str | None) -> str:
    try:
        return "" if task_id is None else check_id(task_id)
    except BadRequest as error:
        raise click.UsageError(error.message.replace('"id"', "--id")) from None


@contextmanager
def _through_gateway(where: flags.Where, give_up: float, submit: Submit, given: dict[str, Any]) -> Iterator[Running]:
    with flags.session(where, give_up) as session:
        yield session.submit(submit.function, submit.args, id=submit.id, **given)


@contextmanager
def _direct(where: flags.Where, submit: Submit) -> Iterator[Running]:
    with TaskConnection(flags.workers_address(where), credentials=flags.workers_credentials(where)) as connection:
        yield DirectTask(connection, submit)


class _Follow:
    """Shows one task, for people or for scripts."""

    def __init__(self, submit: Submit, as_json: bool) -> None:
        self._function = submit.function
        self._id = submit.id
        self._as_json = as_json
        self._values = 0

    def accepted(self, task: Running) -> int:
        """Only until it is sure that it will be done."""
        event = next(task.events())
        if self._as_json:
            print_json(event)
        else:
            print(self._id, flush=True)
        return 0

    def to_the_end(self, task: Running) -> int:
        """All of it; the exit status."""
        final = ""
        with Interrupts(task), Progress(self._function) as progress:
            for event in task.events():
                final = event["event"]
                if self._as_json:
                    print_json(event)
                else:
                    self._show(event, progress)
        return exits.OF_EVENT[final]

    def _show(self, event: dict[str, Any], progress: Progress) -> None:
        name = event["event"]
        if name == "progress":
            progress.show(event)
            return
        progress.hide()
        if name == "output":
            self._values += 1
            print_json(event["value"])
        elif name == "succeeded":
            if event["result"] is not None or not self._values:
                print_json(event["result"])
        elif "error" in event:
            print_error(f"{name}: {event['error'].get('message', '')} ({self._id})")
        elif name == "accepted":
            print_note(f"accepted as {self._id}")

    def not_done(self, error: RemoteError | Unauthorized | Unavailable, status: int) -> int:
        """It was refused, or nobody is there."""
        if self._as_json:
            print_json({"id": self._id, "error": error.as_wire()})
        else:
            print_error(f"{error.code}: {error.message}")
        return status
