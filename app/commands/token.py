"""`run.py token`: make a bearer token, and the entry of the tokens file that makes it good. Talks to no server."""

import hashlib
import json
import secrets
import sys
import time
from typing import Final

import click

from app.gateway.identity import Identity

BYTES: Final = 32
_DAY: Final = 86400

EPILOG = """\
\b
Examples:
  umask 077
  run.py token shop > shop.token 2>> tokens.toml
  run.py token --function send_mail --function 'report_*' --days 90 intranet

The token is printed to stdout, once: nobody can find it again. The entry for the tokens file is printed to stderr."""


@click.command(epilog=EPILOG, short_help="make a token, for --tokens")
@click.argument("subject")
@click.option("--function", "functions", metavar="PATTERN", multiple=True, help="What it may call; several allowed. Everything, without.")
@click.option("--days", type=click.FloatRange(0, min_open=True), metavar="N", help="For how long it is good. For ever, without.")
@click.option("--operator", is_flag=True, help="It sees the figures of the whole gateway.")
def token(subject: str, functions: tuple[str, ...], days: float | None, operator: bool) -> int:
    """Make a token for SUBJECT, who owns the tasks that are submitted with it."""
    end = None if days is None else time.time() + days * _DAY
    try:
        identity = Identity(subject, functions or ("*",), end, operator)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    made = secrets.token_urlsafe(BYTES)
    print(made, flush=True)
    print(entry(identity, made), file=sys.stderr)
    return 0


def entry(identity: Identity, made: str) -> str:
    """As it stands in the tokens file."""
    fields = [f"subject = {_quoted(identity.subject)}", f'sha256 = "{hashlib.sha256(made.encode()).hexdigest()}"']
    if tuple(identity.functions) != ("*",):
        fields.append(f"functions = [{', '.join(map(_quoted, identity.functions))}]")
    if identity.expires is not None:
        fields.append(time.strftime("expires = %Y-%m-%dT%H:%M:%SZ", time.gmtime(identity.expires)))
    if identity.operator:
        fields.append("operator = true")
    return "\n".join(["", "[[token]]", *fields])


def _quoted(text: str) -> str:
    """A TOML string; its escapes are among those of JSON."""
    return json.dumps(text)
