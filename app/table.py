"""What can be set: one table gives the flag, the environment variable, the file key, the default and the help of each setting.

Where the values come from, and which of them wins, is in `app/settings.py`; what a kind of value may be, in `app/kinds.py`.
"""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

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
    ORIGIN,
    PATH,
    PLAIN_LISTENER,
    POSITIVE,
    RATE,
    SECONDS,
    SIZE,
    SIZE_OR_NONE,
    SOME_SECONDS,
    SWITCH,
    TEXT,
    UMASK,
    Kind,
)


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
    Setting("origins", ORIGIN, "", "further origins that a browser may come from, as https://example.org", many=True),
    Setting("tokens", FILE, "", "file of the tokens that are good, of mode 0600; without it and `auth`, nobody is asked who it is"),
    Setting("token_file", FILE, "", "file with the token that commands show to the gateway (or the variable HANDOFF_TOKEN)"),
    Setting("auth", TEXT, "", "module with your own `authenticate(environ, token)`"),
    Setting("auth_recheck", SECONDS, "60", "how often `authenticate` is asked again about a connection that stays; 0: never"),
    Setting("rate_owner", RATE, "0", "messages and requests of one owner, as 100/s; 0: no limit"),
    Setting("rate_address", RATE, "0", "messages and requests from one address, as 100/s; 0: no limit"),
    Setting("rate_failures", RATE, "10/min", "tokens that are none, from one address; 0: no limit"),
    Setting("ws_cert", FILE, "", "certificate of the gateway (PEM, with its chain): it then speaks TLS, as wss:// and https://"),
    Setting("ws_key", FILE, "", "the key of `ws-cert`, where it is not in the same file"),
    Setting("ws_ca", FILE, "", "authority that the gateway's certificate is of: commands then speak TLS, and check it"),
    Setting(
        "insecure_ws", SWITCH, "no", "let the gateway listen to others without tokens and allowed origins: everyone may run everything"
    ),
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
