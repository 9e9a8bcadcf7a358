"""All commands under one name. Those that talk to a server run here; its own roles are here for the shell's completion alone: `run.py`
runs them itself, and a server loads nothing of this folder."""

import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper

import click
from click.shell_completion import shell_complete

from app.commands import exits, flags
from app.commands.call import call
from app.commands.completion import PROGRAM, VARIABLE, completion
from app.commands.connections import connections
from app.commands.functions import functions
from app.commands.output import print_error
from app.commands.status import status
from app.commands.tasks import tasks
from app.commands.token import token
from app.errors import RemoteError, SettingsError, Unavailable
from app.table import TABLE

ROLES = ("start", "gateway", "worker")


def main(argv: Sequence[str]) -> int:
    """Do what the command line says; the exit status. Raises `SettingsError` where it cannot be used."""
    if instruction := os.environ.get(VARIABLE):
        return shell_complete(group, {}, PROGRAM, VARIABLE, instruction)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that cannot show it is no reason to end
    try:
        return _run(argv)
    except click.ClickException as error:
        raise SettingsError(error.format_message()) from None
    except (Unavailable, RemoteError) as error:
        print_error(f"{error.code}: {error.message}")
        return exits.UNAVAILABLE if isinstance(error, Unavailable) else exits.REFUSED
    except KeyboardInterrupt:
        return exits.LEFT
    except BrokenPipeError:
        _write_no_more()
        return exits.CLOSED_PIPE
    except OSError as error:
        print_error(f"the output cannot be written: {error.strerror}")
        _write_no_more()
        return exits.NOT_WRITTEN


def _write_no_more() -> None:
    """Or the interpreter would try it again at its end, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(argv: Sequence[str]) -> int:
    """Not by click's own `main`, which makes its own of a reader that has gone."""
    try:
        with group.make_context(PROGRAM, list(argv)) as context:
            status: int = group.invoke(context)
    except click.exceptions.Exit as done:  # of --help
        status = done.exit_code
    sys.stdout.flush()
    return status


def _role(name: str) -> click.Command:
    return click.Command(name, params=[*(flags.setting_option(setting.name) for setting in TABLE), flags.config_option()])


group = click.Group(commands=[call, tasks, functions, token, status, connections, completion, *map(_role, ROLES)])
