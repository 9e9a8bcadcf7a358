"""All commands under one name. `call`, `tasks`, `functions` and `completion` run here; the roles of a server are here for the shell's
completion alone: `run.py` runs them itself, and a server loads nothing of this folder."""

import os
import sys
from collections.abc import Sequence

import click

from app import settings
from app.commands import exits, flags
from app.commands.call import call
from app.commands.completion import PROGRAM, VARIABLE, completion
from app.commands.functions import functions
from app.commands.output import print_error
from app.commands.tasks import tasks
from app.errors import RemoteError, SettingsError, Unavailable

ROLES = ("start", "gateway", "worker")


def main(argv: Sequence[str]) -> int:
    """Do what the command line says; the exit status. Raises `SettingsError` where it cannot be used."""
    try:
        status = group.main(list(argv), PROGRAM, VARIABLE, standalone_mode=False)
        sys.stdout.flush()
        return status or 0
    except click.ClickException as error:
        raise SettingsError(error.format_message()) from None
    except Unavailable as error:
        print_error(f"{error.code}: {error.message}")
        return exits.UNAVAILABLE
    except RemoteError as error:
        print_error(f"{error.code}: {error.message}")
        return exits.REFUSED
    except (click.Abort, KeyboardInterrupt):
        return exits.LEFT
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter would complain at its end
        return exits.CLOSED_PIPE


def _role(name: str) -> click.Command:
    return click.Command(name, params=[*(flags.setting_option(setting.name) for setting in settings.TABLE), flags.config_option()])


group = click.Group(commands=[call, tasks, functions, completion, *map(_role, ROLES)])
