"""What one process was told: flags, environment variables and the file of settings, brought together by the table of `app/table.py`.

A flag beats a variable, a variable beats the file, the file beats the default. `load` gives one frozen `Settings` a process; nothing here
acts on a setting. A value that cannot be used, or a key that nobody knows, is a `SettingsError` that names it and where it came from.
"""

import argparse
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.address import Address
from app.errors import SettingsError
from app.kinds import Rate
from app.secret import VARIABLE, Secret
from app.table import TABLE, Setting

DEFAULT_FILE = "handoff.toml"


@dataclass(frozen=True, slots=True)
class Settings:
    """All that one process was told; times in seconds, sizes in bytes."""

    ws: Address
    text: Address
    name: str
    workers: int
    concurrency: int
    process_slots: int
    data_dir: Path
    durability: str
    retention: float
    pool: tuple[Address, ...]
    tasks: tuple[str, ...]
    task: tuple[str, ...]
    handler: str
    graceful: float
    pid_file: Path | None
    user: str
    group: str
    umask: int
    origins: tuple[str, ...]
    tokens: Path | None
    token_file: Path | None
    auth: str
    auth_recheck: float
    rate_owner: Rate | None
    rate_address: Rate | None
    rate_failures: Rate | None
    ws_cert: Path | None
    ws_key: Path | None
    ws_ca: Path | None
    insecure_ws: bool
    max_message: int
    max_line: int
    max_result: int
    handshake_timeout: float
    ping_interval: float
    ping_timeout: float
    max_unsent: int
    stall_timeout: float
    max_unfinished: int
    max_queue: int
    hang_limit: float
    max_tasks: int
    max_memory: int
    tracebacks: bool
    log_level: str
    log_format: str
    log_file: Path | None
    smtp_url: str
    secret_file: Path | None
    text_cert: Path | None
    text_key: Path | None
    text_ca: Path | None
    text_idle: float
    insecure_text: bool
    allow_root: bool
    given: frozenset[str] = frozenset()
    """The names that were set anywhere; the others have their defaults."""
    secret: Secret | None = None
    """Put here by who starts a process (`app/secret.py`): what `secret_file` or the variable holds."""

    @property
    def run_dir(self) -> Path:
        """Where the sockets of local workers are."""
        return self.data_dir / "run"

    @property
    def text_tls(self) -> tuple[Path | None, Path | None, Path | None]:
        """For TLS on the Text port, on either side of it: certificate, key, the other side's authority."""
        return self.text_cert, self.text_key, self.text_ca


_NO_SETTINGS = ("HANDOFF_CONFIG", "HANDOFF_TOKEN", VARIABLE)
"""Variables of ours that stand for no setting: a token and a secret are never flags, which everyone on the machine could read."""
_BY_NAME = {setting.name: setting for setting in TABLE}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise SettingsError(message)


def parser(**options: Any) -> argparse.ArgumentParser:
    """A parser of all the flags; what it raises is a `SettingsError`, but `--help` prints and exits."""
    flags = _Parser(allow_abbrev=False, **options)
    flags.add_argument("--config", metavar="PATH", help=f"file of settings (default: {DEFAULT_FILE}, where it exists)")
    for setting in TABLE:
        flags.add_argument(setting.flag, action="append", metavar=setting.kind.metavar, dest=setting.name, help=_help(setting))
    return flags


def _help(setting: Setting) -> str:
    default = f" (default: {setting.default})" if setting.default and "(default:" not in setting.help else ""
    return f"{setting.help}{default} [{setting.variable}]".replace("%", "%%")


def load(argv: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """The settings that these flags, this environment and the file that they name (or `handoff.toml` here) come to.

    Raises `SettingsError` with one clear line.
    """
    return from_flags(parser().parse_args(argv), environ)


def from_flags(flags: argparse.Namespace, environ: Mapping[str, str]) -> Settings:
    """As `load`, for flags that `parser` has parsed."""
    given = _from_file(flags.config, environ) | _from_environ(environ) | _from_namespace(flags)
    values = {setting.name: given[setting.name] if setting.name in given else _default(setting) for setting in TABLE}
    return Settings(**values, given=frozenset(given))


def _default(setting: Setting) -> Any:
    return setting.read([setting.default], "default")


def _from_namespace(flags: argparse.Namespace) -> dict[str, Any]:
    found = ((setting, getattr(flags, setting.name)) for setting in TABLE)
    return {setting.name: setting.read(texts, setting.flag) for setting, texts in found if texts is not None}


def _from_environ(environ: Mapping[str, str]) -> dict[str, Any]:
    known = {name: setting for setting in TABLE for name in (setting.also, setting.variable)}  # ours comes last, and wins
    ours = [name for name in environ if name.startswith("HANDOFF_") and name not in _NO_SETTINGS]
    _refuse_unknown(ours, known, "environment")
    return {setting.name: setting.read([environ[name]], name) for name, setting in known.items() if environ.get(name)}


def _from_file(named: str | None, environ: Mapping[str, str]) -> dict[str, Any]:
    path = named or environ.get("HANDOFF_CONFIG") or (DEFAULT_FILE if Path(DEFAULT_FILE).exists() else None)
    if path is None:
        return {}
    keys = _parse_file(path)
    _refuse_unknown(keys, _BY_NAME, path)
    return {name: _BY_NAME[name].read(_as_texts(name, value, path), f"{path}: {name}") for name, value in keys.items()}


def _parse_file(path: str) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from None
    except ValueError as error:  # TOML or UTF-8 that is none
        raise SettingsError(f"{path}: {error}") from None


def _as_texts(name: str, value: Any, path: str) -> list[str]:
    items = value if isinstance(value, list) and _BY_NAME[name].many else [value]
    if not all(isinstance(item, str | int | float) for item in items):
        raise SettingsError(f"{path}: {name} is not {_BY_NAME[name].kind.wanted}")
    return [str(item) for item in items] or [""]


def _refuse_unknown(names: Iterable[str], known: Mapping[str, Any], source: str) -> None:
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise SettingsError(f"{source}: no setting is called {unknown[0]!r}; --help lists them")
