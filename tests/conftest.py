"""Fixtures that start servers, and see that nothing is left of them."""

from collections.abc import Callable, Iterator

import pytest

from tests.harness import Server


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """The server with its defaults, shared by the tests of a file."""
    running = Server()
    yield running
    running.clean()


@pytest.fixture
def start_server() -> Iterator[Callable[..., Server]]:
    """Starts servers with flags; ends them after the test, and looks for orphans."""
    started: list[Server] = []

    def start(*flags: str, **options: object) -> Server:
        started.append(Server(*flags, **options))  # type: ignore[arg-type]
        return started[-1]

    yield start
    for running in reversed(started):
        running.clean()
