"""What the shell is offered after TAB: names of functions and of their parameters where a gateway answers at once, nothing otherwise."""

from typing import Any

import click
from click.shell_completion import CompletionItem

from app.commands import flags
from app.errors import HandoffError
from app.remote import Session
from app.remote.socket import Pace

_AT_ONCE = Pace(patience=0.5)


def function_names(context: click.Context, argument: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Those that begin so, with the first words of their docstrings."""
    found = (entry for entry in _catalogue(context) if entry["name"].startswith(incomplete))
    return [CompletionItem(entry["name"], help=entry.get("doc") or None) for entry in found]


def parameter_names(context: click.Context, argument: click.Parameter, incomplete: str) -> list[str]:
    """`name=` for each parameter of the function that was named and that is not given yet."""
    function = context.params.get("function")
    given = {pair.partition("=")[0] for pair in context.params.get("pairs") or ()}
    params = [param for entry in _catalogue(context) if entry["name"] == function for param in entry["params"]]
    return [f"{param['name']}=" for param in params if param["name"].startswith(incomplete) and param["name"] not in given]


def _catalogue(context: click.Context) -> list[dict[str, Any]]:
    where = {name: context.params.get(name) for name in (*flags.GATEWAY, "config")}
    try:
        with Session(flags.gateway_url(where), give_up=0.0, pace=_AT_ONCE, **flags.credentials(where)) as session:
            found: list[dict[str, Any]] = session.describe(_AT_ONCE.patience)["functions"]
            return found
    except HandoffError:  # nobody there, or settings that cannot be used: whoever presses TAB is not to be told so
        return []
