"""`run.py functions`: the catalogue, as a table or as one JSON object a line."""

from typing import Any

import click

from app.commands import exits, flags
from app.commands.completing import function_names
from app.commands.output import print_error, print_json, print_table, to_json

EPILOG = """\
\b
Examples:
  run.py functions
  run.py functions send_mail
  run.py functions --json | jq -r .name"""


@flags.server_options(*flags.GATEWAY)
@click.command(epilog=EPILOG, short_help="what can be called")
@click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=function_names)
@flags.json_option
def functions(names: tuple[str, ...], as_json: bool, **where: str | None) -> int:
    """List the functions that can be called, with their parameters: NAME:TYPE, with =DEFAULT where one may be left out."""
    with flags.session(where) as session:
        catalogue = session.describe()["functions"]
    found = [entry for entry in catalogue if not names or entry["name"] in names]
    if as_json:
        for entry in found:
            print_json(entry)
    else:
        print_table(("function", "parameters", ""), [_row(entry) for entry in found])
    unknown = set(names) - {entry["name"] for entry in found}
    for name in sorted(unknown):
        print_error(f"no function {name!r} here")
    return exits.REFUSED if unknown else 0


def _row(entry: dict[str, Any]) -> tuple[str, str, str]:
    return entry["name"], " ".join(map(_parameter, entry["params"])), entry.get("doc", "")


def _parameter(param: dict[str, Any]) -> str:
    default = "" if param["required"] else f"={to_json(param.get('default'))}"
    return f"{param['name']}:{param.get('type', 'any')}{default}"
