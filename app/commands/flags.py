"""What the commands have in common on the command line: flags of the settings' own table, and addresses made of them."""

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from app import settings
from app.address import Address
from app.entrance import Credentials
from app.errors import SettingsError
from app.private import read_private
from app.remote import Session
from app.secret import take_secret
from app.table import TABLE
from app.tls import Files

Where = dict[str, str | None]
"""What was said of where the server is and how to be let in, by the names of settings, and `config`."""

F = TypeVar("F", bound=Callable[..., Any])
CONFIG = "config"
GATEWAY = ("ws", "token_file", "ws_ca")
"""The settings that say how the gateway is reached."""
WORKERS = ("text", "secret_file", "text_ca", "text_cert", "text_key")
"""The settings that say how workers are reached."""

_HELP = {"ws": "the gateway's address, as it was started with", "text": "the workers' address, with --direct"}
_BY_NAME = {setting.name: setting for setting in TABLE}


def setting_option(name: str, help_text: str = "") -> click.Option:
    """The flag of a setting, with its variable and default as the table has them."""
    setting = _BY_NAME[name]
    default = f" (default: {setting.default})" if setting.default and "(default:" not in setting.help else ""
    text = f"{help_text or setting.help}{default} [{setting.variable}]"
    return click.Option([setting.flag], metavar=setting.kind.metavar, multiple=setting.many, help=text)


def config_option() -> click.Option:
    """The flag that names a file of settings."""
    return click.Option(["--config"], metavar="PATH", help=f"file of settings (default: {settings.DEFAULT_FILE}, where it exists)")


def server_options(*names: str) -> Callable[[click.Command], click.Command]:
    """Give a command the flags that say where the server is."""

    def add(command: click.Command) -> click.Command:
        command.params += [*(setting_option(name, _HELP.get(name, "")) for name in names), config_option()]
        return command

    return add


def json_option(command: F) -> F:
    """For scripts."""
    return click.option("--json", "as_json", is_flag=True, help="For scripts: one JSON object a line on stdout, and nothing else there.")(
        command
    )


def gateway_url(flags: Where) -> str:
    """Where the gateway is, by flags, environment and file; raises `SettingsError`."""
    found = chosen(flags)
    scheme = "wss" if found.ws_cert or found.ws_ca else "ws"
    return str(found.ws) if found.ws.path else f"{scheme}://{_named('--ws', found.ws)}/ws"


def workers_address(flags: Where) -> Address:
    """Where the workers are, likewise."""
    return _named("--text", chosen(flags).text)


def workers_credentials(flags: Where) -> Credentials:
    """What is shown to them, and demanded of them, likewise."""
    found = chosen(flags)
    return Credentials(take_secret(found.secret_file, os.environ), Files("--text", *found.text_tls))


def session(flags: Where, give_up: float | None = 0.0) -> Session:
    """A session with the gateway; raises `Unavailable` where nobody answers, `RemoteError` where our token is none."""
    return Session(gateway_url(flags), give_up=give_up, **credentials(flags))


def credentials(flags: Where) -> dict[str, Any]:
    """How we are let in: the token of `--token-file`, or of the variable HANDOFF_TOKEN, or of the file that variable or settings name."""
    found = chosen(flags)
    token = "" if flags.get("token_file") else os.environ.get("HANDOFF_TOKEN", "")
    if not token and found.token_file is not None:
        token = read_private(found.token_file, "--token-file").decode("utf-8", "replace")
    return {"token": _checked(token.strip()), "ca": str(found.ws_ca or "")}


def _checked(token: str) -> str:
    if not all("!" <= character <= "~" for character in token):
        raise SettingsError("the token has characters that none has; it is one word, as `token` printed it")
    return token


def chosen(flags: Where) -> settings.Settings:
    """All settings, as far as these flags, the environment and the file say; raises `SettingsError`."""
    argv: Sequence[str] = [f"--{name.replace('_', '-')}={value}" for name, value in flags.items() if value is not None]
    return settings.load(argv, os.environ)


def _named(flag: str, address: Address) -> Address:
    if not address.path and address.port == 0:
        raise SettingsError(f"{flag}: port 0 names no server; give the port that it printed when it started")
    return address
