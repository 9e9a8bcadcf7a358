"""Real servers for drivers to talk to: PostgreSQL, MariaDB and Redis, each in a directory of its own and reached by a unix socket there.

They listen on no port, and run as users of their own where the tests are root. Where one is not installed, its tests are skipped.
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.harness import wait_until

_POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


@contextmanager
def postgres() -> Iterator[Path]:
    """The directory of its socket; the user `test` and the database `postgres` are there."""
    if not _POSTGRES:
        pytest.skip("no PostgreSQL")
    programs, user = _POSTGRES[-1], _servant("postgres")
    with _home(user) as home:
        data = home / "data"
        _run(user, programs / "initdb", "-D", data, "-A", "trust", "-U", "test", "-E", "UTF8", "--locale=C", "--no-sync")
        command: Sequence[str | Path] = [programs / "postgres", "-D", data, "-k", home, "-c", "listen_addresses=", "-F"]
        with _serving(user, home, command, [programs / "pg_isready", "-h", home], signal.SIGINT):
            yield home


@contextmanager
def mariadb() -> Iterator[Path]:
    """Its socket; the user `root` has no password."""
    if not all(map(shutil.which, ("mariadbd", "mariadb-install-db", "mariadb-admin"))):
        pytest.skip("no MariaDB")
    user = _servant("mysql")
    with _home(user) as home:
        as_user = [f"--user={user}"] if user else []
        options = ["--auth-root-authentication-method=normal", "--skip-test-db"]
        _run(None, "mariadb-install-db", "--no-defaults", *as_user, f"--datadir={home}/data", *options)
        sock = home / "sock"
        command = ["mariadbd", "--no-defaults", f"--datadir={home}/data", f"--socket={sock}", "--skip-networking", f"--pid-file={home}/pid"]
        asking = ["mariadb-admin", "--no-defaults", f"--socket={sock}", "-u", "root", "ping"]
        with _serving(user, home, command, asking, signal.SIGTERM):
            yield sock


@contextmanager
def redis() -> Iterator[Path]:
    """Its socket."""
    if not shutil.which("redis-server"):
        pytest.skip("no Redis")
    with _home(None) as home:
        sock = home / "sock"
        command: Sequence[str | Path] = ["redis-server", "--port", "0", "--unixsocket", str(sock), "--save", "", "--dir", str(home)]
        with _serving(None, home, command, ["redis-cli", "-s", str(sock), "ping"], signal.SIGTERM):
            yield sock


def _servant(name: str) -> str | None:
    """Whom to run a server as that refuses to be root; None for ourselves."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(name).pw_name
    except KeyError:
        pytest.skip(f"there is no user {name}")


@contextmanager
def _home(user: str | None) -> Iterator[Path]:
    home = Path(tempfile.mkdtemp(prefix="handoff-db-"))  # the path of a socket must be short
    try:
        if user:
            shutil.chown(home, user)
        yield home
    finally:
        shutil.rmtree(home)


def _run(user: str | None, *command: str | Path) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False, **_as(user))
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def _serving(user: str | None, home: Path, command: Sequence[str | Path], asking: Sequence[str | Path], end: int) -> Iterator[None]:
    """The server, once it answers; until the block is left."""
    with open(home / "log", "wb") as log:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, **_as(user))
    try:
        wait_until(lambda: _answers(server, asking), 30, lambda: (home / "log").read_text(errors="replace"))
        yield
    finally:
        server.send_signal(end)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
            raise


def _answers(server: subprocess.Popen[bytes], asking: Sequence[str | Path]) -> bool:
    assert server.poll() is None, "the database ended"
    return subprocess.run(asking, stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False).returncode == 0


def _as(user: str | None) -> dict[str, Any]:
    return {"user": user, "group": user, "extra_groups": []} if user else {}
