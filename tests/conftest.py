"""Fixtures that start servers, and see that nothing is left of them."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.testing import clean_all
from tests.browser import Browser, find_chromium
from tests.effects import open_gate
from tests.harness import Server, WsClient
from tests.spread import Spread, order

pytest_plugins = ["app.testing"]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Spread:
    """As `tests/spread.py` has it."""
    return Spread(config, log)


def pytest_configure() -> None:
    """What a shell starts with `&` ignores Ctrl-C, what nohup starts its HUP, and so would all that we start. Where Python is told to keep
    no compiled files, each of some hundred servers would compile all its modules anew, which takes as long as starting it does."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """As `tests/spread.py` has it."""
    order(items)


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server that the tests of a file share, with the `FLAGS` of that file."""
    running = Server(*getattr(request.module, "FLAGS", ()))
    yield running
    running.clean()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, without a window."""
    program = find_chromium()
    if program is None:
        pytest.skip("chromium is not installed")
    with Browser(program) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[WsClient]:
    """A browser, as far as the gateway can see."""
    with WsClient(server.ws_url) as connected:
        yield connected


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    """A file that is not there yet, for which tasks wait; it is opened at the end in any case."""
    path = tmp_path / "gate"
    yield path
    open_gate(path)


@pytest.fixture
def start_server() -> Iterator[Callable[..., Server]]:
    """Starts servers with flags; ends them after the test, and looks for orphans."""
    started: list[Server] = []

    def start(*flags: str, **options: object) -> Server:
        started.append(Server(*flags, **options))  # type: ignore[arg-type]
        return started[-1]

    yield start
    clean_all(started)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(path)], capture_output=True, check=False).returncode:
        pytest.skip("only root mounts a small disk")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)
