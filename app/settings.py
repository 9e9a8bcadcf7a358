"""What can be set: one table gives the flag, the environment variable, the file key, the default and the help of each setting.

A flag beats a variable, a variable beats the file, the file beats the default. `load` gives one frozen `Settings` a process; nothing here
acts on a setting. A value that cannot be used, or a key that nobody knows, is a `SettingsError` that names it and where it came from.
"""

import argparse
import os
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from app.address import Address
from app.errors import SettingsError
from app.kinds import (
    ADDRESS,
    COUNT,
    DURABILITY,
    FEW,
    FILE,
    LEVEL,
    LINE_SIZE,
    LISTENER,
    LOG_FORMAT,
    NAME,
    PATH,
    PLAIN_LISTENER,
    POSITIVE,
    SECONDS,
    SIZE,
    SIZE_OR_NONE,
    SOME_SECONDS,
    SWITCH,
    TEXT,
    UMASK,
    Kind,
)
from app.secret import VARIABLE, Secret

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


class Setting(NamedTuple):
    """One row of the table.

    `many`: several flags, or values with commas between them, add up to a tuple. `also`: a variable that is read where ours is not set.
    """

    name: str
    kind: Kind
    default: str
    help: str
    many: bool = False
    also: str = ""

    @property
    def flag(self) -> str:
        """As `--data-dir`."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """As `HANDOFF_DATA_DIR`."""
        return "HANDOFF_" + self.name.upper()

    def read(self, texts: Sequence[str], source: str) -> Any:
        """The value that these texts mean; `source` is named where they mean none."""
        if self.many:
            return tuple(self._read_one(part.strip(), source) for text in texts for part in text.split(",") if part.strip())
        return self._read_one(texts[-1], source)

    def _read_one(self, text: str, source: str) -> Any:
        try:
            return self.kind.read(text)
        except SettingsError as error:
            raise SettingsError(f"{source}: {error.message}") from None
        except (ValueError, KeyError, OverflowError):
            raise SettingsError(f"{source}: {text!r} is not {self.kind.wanted}") from None


TABLE = (
    Setting("ws", PLAIN_LISTENER, "127.0.0.1:8080", "where the gateway listens; port 0 takes a free one and prints it"),
    Setting("text", LISTENER, "127.0.0.1:12345", "where the workers listen; also unix:/path, tls://HOST:PORT, or fd:0 for one handed over"),
    Setting("name", NAME, "", "what one worker, or gateway, that is started alone calls itself"),
    Setting("workers", FEW, str(len(os.sched_getaffinity(0))), "worker processes (default: one a CPU)"),
    Setting("concurrency", POSITIVE, "100", "tasks at once in one worker process"),
    Setting("process_slots", COUNT, "1", "tasks at once that run in processes of their own, a worker"),
    Setting("data_dir", PATH, "var", "journal, run directory, outbox"),
    Setting("durability", DURABILITY, "full", "full: what is accepted survives a power cut; normal: a crash; off: nothing"),
    Setting("retention", SOME_SECONDS, "86400", "how long a finished task is kept, and its id known"),
    Setting("pool", ADDRESS, "", "workers elsewhere that the gateway uses; `start` then runs local workers only with --workers", many=True),
    Setting("tasks", TEXT, "", "modules to load tasks from, besides those that come with it", many=True),
    Setting("task", TEXT, "", "functions that become tasks as they are, as MODULE:FUNCTION", many=True),
    Setting("handler", TEXT, "", "module with your own WebSocket handlers; it takes /, and /ws stays"),
    Setting("graceful", SECONDS, "10", "how long TERM waits for running tasks"),
    Setting("pid_file", FILE, "", "where the master writes its process id (default: run/master.pid in data-dir)"),
    Setting("user", TEXT, "", "whom root is to become once it listens, by name or number; programs that tasks start cannot become more"),
    Setting("group", TEXT, "", "with --user: which group (default: that of the user)"),
    Setting("umask", UMASK, "077", "what others may not do with files that tasks make, in octal; our own are for us alone in any case"),
    Setting("origins", TEXT, "", "further origins that a browser may come from, as https://example.org", many=True),
    Setting("max_message", SIZE, "64KiB", "largest WebSocket message, or body over HTTP"),
    Setting("max_line", LINE_SIZE, "1MiB", "longest line on the Text port"),
    Setting("max_result", SIZE, "1MiB", "largest result of a task"),
    Setting("handshake_timeout", SOME_SECONDS, "10", "how long a WebSocket handshake, or an HTTP request, may take"),
    Setting("ping_interval", SOME_SECONDS, "20", "silence after which a browser is pinged"),
    Setting("ping_timeout", SOME_SECONDS, "20", "silence after the ping that ends the connection"),
    Setting("max_unsent", SIZE, "1MiB", "most that waits for a slow reader"),
    Setting("stall_timeout", SOME_SECONDS, "10", "how long a reader may take nothing before its connection is closed"),
    Setting("max_unfinished", POSITIVE, "2000", "unfinished tasks a connection, or over HTTP an address"),
    Setting("max_queue", POSITIVE, "100000", "tasks that may wait in the gateway"),
    Setting("hang_limit", SOME_SECONDS, "30", "a process whose event loop is held that long is ended"),
    Setting("max_tasks", COUNT, "0", "tasks after which a worker process is replaced by a fresh one; 0: no limit"),
    Setting("max_memory", SIZE_OR_NONE, "0", "memory (RSS) past which a worker process is replaced by a fresh one; 0: no limit"),
    Setting("tracebacks", SWITCH, "no", "tracebacks of tasks go to the client as well as to the log"),
    Setting("log_level", LEVEL, "info", "debug, info, warning or error"),
    Setting("log_format", LOG_FORMAT, "text", "text, or json: one object a line"),
    Setting("log_file", FILE, "", "where the log goes, opened anew at SIGUSR1; empty: stderr"),
    Setting("smtp_url", TEXT, "", "where mail goes, as smtps://user:password@host; empty: a Maildir in data-dir", also="SMTP_URL"),
    Setting("secret_file", FILE, "", "file (mode 0600) with the secret of gateways, clients and workers; or the variable HANDOFF_SECRET"),
    Setting("text_cert", FILE, "", "certificate (PEM) for tls://: the workers' own, or what a gateway or client shows to workers"),
    Setting("text_key", FILE, "", "its key, where that is in another file"),
    Setting("text_ca", FILE, "", "authority (PEM) that the other side's certificate must be of; workers then demand one"),
    Setting("text_idle", SOME_SECONDS, "600", "silence after which a connection to the workers' port that waits for nothing is closed"),
    Setting("insecure_text", SWITCH, "no", "workers may listen to other machines without a secret or certificates"),
    Setting("allow_root", SWITCH, "no", "ports may be open to other machines although tasks run as root"),
)
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
    ours = [name for name in environ if name.startswith("HANDOFF_") and name not in ("HANDOFF_CONFIG", VARIABLE)]
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
