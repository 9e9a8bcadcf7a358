"""`run.py connections`: the connections of all processes of a server, as each of them tells at its control socket."""

import socket
from collections.abc import Iterator
from typing import Any

import click

from app import wire
from app.commands import exits, flags
from app.commands.output import print_error, print_json, print_table
from app.commands.status import read_board
from app.errors import HandoffError, Unavailable
from app.rundir import RunDirectory
from app.scoreboard import Tree

COLUMNS = ("pid", "process", "id", "transport", "protocol", "recv-q", "send-q", "received", "sent", "state", "local", "remote")
_LONGEST = 64 * 1024
PATIENCE = 3.0
"""Seconds that a process may be silent before it is passed over."""

EPILOG = f"""\
\b
Examples:
  run.py connections
  run.py connections --json | jq 'select(.protocol == "websocket")'

`recv-q` and `send-q` are bytes that wait: those that came and were not read yet, and those that the other side has not taken, in the kernel
and in the process (`unsent` with --json). `received` and `sent` are all bytes so far; of unix sockets nobody counts them. A process whose
event loop is blocked cannot tell of its connections, and is named on stderr.

\b
Exit status: 0 all that run have told, 1 some have not, {exits.UNAVAILABLE} nothing runs."""


@flags.server_options("data_dir")
@click.command(epilog=EPILOG, short_help="all connections of a server")
@flags.json_option
def connections(as_json: bool, **where: str | None) -> int:
    """List the connections of every process."""
    run_dir = flags.chosen(where).run_dir
    alive = read_board(run_dir).alive
    rundir = RunDirectory(run_dir)
    rows, silent = [], 0
    for said in alive:
        if said["role"] == "master":  # it serves nobody
            continue
        try:
            for entry in _ask(rundir, said):
                print_json(entry) if as_json else rows.append(_row(entry))
        except Unavailable as error:
            silent += 1
            print_error(f"{said['name']} (pid {said['pid']}): {error.message}")
    if not as_json:
        print_table(COLUMNS, rows)
    return 1 if silent else 0


def _ask(rundir: RunDirectory, said: Tree) -> Iterator[dict[str, Any]]:
    who = {"pid": said["pid"], "process": said["name"]}
    buffer = wire.LineBuffer(_LONGEST)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(PATIENCE)
        try:
            sock.connect(rundir.control(said["slot"]).sockaddr)
            while data := sock.recv(65536):
                for line in buffer.feed(data):
                    yield who | wire.decode(line)
        except (OSError, HandoffError) as error:
            raise Unavailable(f"does not tell its connections: {error}") from None


def _row(entry: dict[str, Any]) -> tuple[str, ...]:
    waits = entry["send_queue"] + entry.get("unsent", 0)
    told = (entry["process"], entry.get("id", "-"), entry["transport"], entry["protocol"], str(entry["receive_queue"]), str(waits))
    counted = (str(entry.get("received", "-")), str(entry.get("sent", "-")))
    return (str(entry["pid"]), *told, *counted, entry["state"], entry["local"] or "-", entry["remote"] or "-")
