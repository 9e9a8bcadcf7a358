"""The command line of `run.py`, as far as it starts, ends and reloads servers: its help, its flags, and which command is meant.

What the commands do is in `run.py`; those that talk to a server that runs are in `app/commands/`, with a command line of their own.
"""

import os
from argparse import SUPPRESS, Namespace, RawDescriptionHelpFormatter
from collections.abc import Collection, Sequence

from app import settings
from app.errors import SettingsError
from app.settings import Settings

DESCRIPTION = """\
Hands tasks off from WebSocket clients to a pool of worker processes.

commands:
  start     a gateway and local workers, under one master (the default); with --pool, a gateway alone, unless --workers is given too;
            -d: in the background, once it is ready
  stop      end it, and what runs in it, at once; -g: as soon as its tasks have ended, or --graceful is over
  restart   stop (with -g as above), then start (with -d as above)
  reload    load changed code of tasks and handlers, beside what runs; settings stay as they are
  gateway   one gateway process; without --pool it uses the workers that run in the same data directory
  worker    one worker process; with --text fd:0 one of --workers that share a listener
  call      run one task on a server that runs, and wait for it: run.py call countdown start=3
  tasks     your tasks, or all that was said of one: run.py tasks
  functions what can be called: run.py functions
  token     make a token for --tokens: run.py token shop
  status    what runs, and what each process is doing: run.py status
  connections  all connections of a server: run.py connections
  completion  make bash, zsh or fish complete all this: run.py completion bash

`run.py call --help` and so on say more of the last seven.
Each setting is a flag, an environment variable, and a key in the settings file, in this order of precedence.
"""

CLIENT_COMMANDS = ("call", "tasks", "functions", "token", "status", "connections", "completion")
COMPLETING = "_RUN_PY_COMPLETE"
SWITCHES = ("-d", "--daemon", "-g", "--gently")
"""The flags without a value."""

_GO_WITH = {"daemon": ("start", "restart"), "gently": ("stop", "restart")}


def for_client(argv: Sequence[str]) -> list[str] | None:
    """The words for a command that talks to a server, the command first; None where it is another's."""
    at = _place_of_command(argv)
    if COMPLETING in os.environ or (argv[at : at + 1] and argv[at] in CLIENT_COMMANDS):
        return [*argv[at : at + 1], *argv[:at], *argv[at + 1 :]]
    return None


def _place_of_command(argv: Sequence[str]) -> int:
    """Where the first word stands that is neither a flag nor the value of one: each setting's flag has a value."""
    at = 0
    while at < len(argv) and argv[at].startswith("-"):
        at += 1 if "=" in argv[at] or argv[at] in SWITCHES else 2
    return at


def parse(argv: Sequence[str], commands: Collection[str]) -> tuple[Namespace, Settings]:
    """The flags, with `command`, `daemon` and `gently`, and the settings. Raises `SettingsError` with one clear line."""
    usage = "run.py [COMMAND] [--flag VALUE ...]"
    parser = settings.parser(prog="run.py", usage=usage, description=DESCRIPTION, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("command", nargs="?", default="start", help=SUPPRESS)
    in_background = "start, restart: in the background; what is said goes to handoff.log in data-dir"
    parser.add_argument(*SWITCHES[:2], action="store_true", help=in_background)
    parser.add_argument(*SWITCHES[2:], action="store_true", help="stop, restart: let tasks end first")
    flags, unknown = parser.parse_known_args(argv)
    if unknown:  # before the command is looked at, which may be the value of an unknown flag
        raise SettingsError(f"nothing is called {unknown[0]!r}; --help lists flags and commands")
    if flags.command not in commands:
        raise SettingsError(f"no command is called {flags.command!r}; there are {', '.join([*commands, *CLIENT_COMMANDS])}")
    for name, allowed in _GO_WITH.items():
        if getattr(flags, name) and flags.command not in allowed:
            raise SettingsError(f"--{name}: goes with {' and '.join(allowed)} alone")
    return flags, settings.from_flags(flags, os.environ)
