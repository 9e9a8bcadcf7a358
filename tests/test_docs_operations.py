"""`docs/operations.md`: all of its commands are typed, and say what it says; its table of files is what is there, its names of log lines
are those that are logged. How a document is followed is in `tests/operating.py`."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.harness import ROOT, Server, WsClient, wait_until
from tests.operating import Reader, covers, lay_out, lines_outside, sections
from tests.supervision import reserved

pytestmark = pytest.mark.timeout(240)

DOCUMENT = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
HERE = {
    "127.0.0.1:8080": "127.0.0.1",
    "127.0.0.1:12345": "127.0.0.1",
    "10.0.0.5:12345": "127.0.0.5",
    "10.0.0.9:12345": "127.0.0.9",
}
"""The addresses of the document, and the hosts that stand for them."""
INSTALL = "python3 -m venv .venv && .venv/bin/pip install -q -r requirements.txt"


def wants(*tools: str) -> pytest.MarkDecorator:
    """Skips the test where a program is missing."""
    path = f"{os.environ['PATH']}:/usr/sbin"
    missing = [tool for tool in tools if not shutil.which(tool, path=path)]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can do that")


@pytest.fixture
def reader(request: pytest.FixtureRequest) -> Iterator[Reader]:
    """Of the document; fails where a test has not followed what it says that it does."""
    one = Reader(DOCUMENT, frozenset({INSTALL}))
    yield one
    assert tuple(one.followed) == request.function.headings


class Place:
    """A directory as after a fresh clone, with ports that stay the same; what is left in the end is stopped."""

    def __init__(self, directory: Path) -> None:
        self.directory = lay_out(directory)
        self._ports = ExitStack()
        found = {address: self._ports.enter_context(reserved(host)).getsockname() for address, host in HERE.items()}
        self.names = {address: f"{host}:{port}" for address, (host, port) in found.items()}
        self.names |= {"10.0.0.5": "127.0.0.5", "10.0.0.9": "127.0.0.9"}
        self.environ = {"HANDOFF_WS": self.names["127.0.0.1:8080"], "HANDOFF_TEXT": self.names["127.0.0.1:12345"]}

    @property
    def url(self) -> str:
        """Of the gateway."""
        return f"ws://{self.names['127.0.0.1:8080']}/ws"

    def run(self, *words: str) -> None:
        """One command that the document does not have here."""
        environ = os.environ | self.environ
        subprocess.run([sys.executable, "run.py", *words], cwd=self.directory, env=environ, check=True, capture_output=True, timeout=60)

    def tree(self) -> set[int]:
        """The processes that work here."""
        return {int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit() and self._is_here(path)}

    def _is_here(self, process: Path) -> bool:
        with suppress(OSError):
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
            return state not in "ZX" and Path(os.readlink(process / "cwd")) == self.directory
        return False

    def clean(self) -> None:
        """Nothing is to be left of it; what is, is killed."""
        self._ports.close()
        try:
            wait_until(lambda: not self.tree(), 5.0, lambda: f"left: {self.tree()}")
        finally:
            for pid in self.tree():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    (tmp_path / "place").mkdir()
    one = Place(tmp_path / "place")
    yield one
    one.clean()


@pytest.fixture
def everybodys_python() -> None:
    """Skips the test where other users cannot run what runs it."""
    with suppress(PermissionError):
        command = [sys.executable, "-c", f"import gevent; open({str(ROOT / 'run.py')!r})"]
        if subprocess.run(command, user="nobody", cwd="/", capture_output=True, check=False).returncode == 0:
            return
    pytest.skip("this Python, or what is installed for it, is root's alone")


def test_every_block_is_followed_by_a_test() -> None:
    ours = [test for name, test in globals().items() if name.startswith("test_")]
    covered = [heading for test in ours for heading in getattr(test, "headings", ())]
    assert set(covered) == set(sections(DOCUMENT))
    assert list(lines_outside(DOCUMENT)) == []


def test_it_is_installed_as_the_readme_says() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"    {INSTALL} && .venv/bin/python run.py\n" in readme
    assert f"$ {INSTALL}\n" in DOCUMENT


@covers("Installing", "Without supervisord")
def test_the_first_start_and_the_commands_of_a_server_in_the_background(reader: Reader, place: Place) -> None:
    reader.follow("Installing", place.directory, place.names, place.environ)
    place.run("stop")
    reader.follow("Without supervisord", place.directory, place.names, place.environ)


@wants("curl", "logrotate")
@covers("Installing", "Deploying", "Health", "Logs")
def test_changed_code_health_and_logs(reader: Reader, place: Place) -> None:
    user, group = (subprocess.run(["id", flag], capture_output=True, text=True, check=True).stdout.strip() for flag in ("-un", "-gn"))
    names = place.names | {"/srv/handoff/var": str(place.directory / "var"), "su svc-handoff svc-handoff": f"su {user} {group}"}
    for heading in ("Installing", "Deploying", "Health", "Logs"):
        reader.follow(heading, place.directory, names, place.environ)
    place.run("stop")


@wants("openssl")
@covers("Tokens and the gateway's certificate")
def test_tokens_and_certificates_are_changed(reader: Reader, place: Place) -> None:
    reader.follow("Tokens and the gateway's certificate", place.directory, place.names, place.environ)


@needs_root
@wants("useradd")
@covers("Users and permissions")
def test_a_user_of_its_own(everybodys_python: None, reader: Reader) -> None:
    user = f"handoff-{uuid.uuid4().hex[:8]}"
    with tempfile.TemporaryDirectory(prefix="handoff-test-") as home:
        os.chmod(home, 0o755)
        place = Place(Path(home))
        try:
            names = place.names | {"svc-handoff": user, "/var/lib/handoff": f"{home}/data"}
            reader.follow("Users and permissions", place.directory, names, place.environ)
        finally:
            place.clean()
            subprocess.run(["userdel", user], check=False, capture_output=True)


@covers("With supervisord")
def test_under_supervisord(reader: Reader, place: Place) -> None:
    split = place.directory / "supervisord.d" / "split.conf"
    split.write_text(split.read_text().replace("127.0.0.1:12345", place.names["127.0.0.1:12345"]))
    reader.follow("With supervisord", place.directory, place.names, place.environ)


@needs_root
@covers("A full disk, and one that fails")
def test_a_full_disk(reader: Reader, place: Place, small_disk: Path) -> None:
    reader.follow("A full disk, and one that fails", place.directory, place.names | {"/mnt/disk": str(small_disk)}, place.environ)


@wants("haproxy", "openssl")
@covers("Several machines")
def test_several_machines(reader: Reader, place: Place) -> None:
    reader.follow("Several machines", place.directory, place.names, {"HANDOFF_WS": place.environ["HANDOFF_WS"]})


def first_column(heading: str) -> set[str]:
    """What is named in the first column of the table under this heading."""
    section = DOCUMENT.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return {name for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE) for name in re.findall(r"`([^`]+)`", row)}


def run_echo(client: WsClient, name: str) -> dict[str, object]:
    client.send({"id": name, "function": "echo", "args": {"text": name}, "events": "final"})
    answer: dict[str, object] = client.final(name, 30)
    return answer


@wants("sqlite3", "fuser")
@covers("Backing up the journal")
def test_a_backup_made_while_it_runs_can_be_started_from(reader: Reader, start_server: Callable[..., Server], tmp_path: Path) -> None:
    server = start_server(data_dir=tmp_path / "var")
    with WsClient(server.ws_url) as client:
        for number in range(200):
            client.send({"id": f"before{number}", "function": "echo", "args": {"number": number}, "events": "final"})
        assert run_echo(client, "known")["event"] == "succeeded"
        client.send({"id": "waits", "function": "echo", "args": {}, "delay": 3600})
        assert client.until(lambda message: message.get("id") == "waits")["event"] == "accepted"
        reader.follow("Backing up the journal", tmp_path, {}, {})
        assert run_echo(client, "after")["event"] == "succeeded", "it goes on"
    restored = start_server(data_dir=tmp_path / "backup")
    with WsClient(restored.ws_url) as client:
        client.send({"id": "known", "attach": 0})
        assert client.final("known")["result"] == {"text": "known"}
        states = {task["id"]: task["state"] for task in client.ask({"list": {"limit": 300}})["list"]}
    assert states["waits"] == "queued"
    assert "after" not in states


def test_its_table_of_files_is_what_is_there(start_server: Callable[..., Server]) -> None:
    server = start_server()
    with WsClient(server.ws_url) as client:
        client.send(
            {"id": "m1", "function": "send_mail", "args": {"from": "a@x.org", "to": "b@y.org", "contents": "hi"}, "events": "final"}
        )
        assert client.final("m1")["event"] == "succeeded"
    found = sorted(server.data_dir.iterdir())
    assert {path.name for path in found} == first_column("What is on the disk")
    assert all(path.stat().st_mode & 0o077 == 0 for path in [server.data_dir, *found])


def test_the_lines_that_it_names_are_those_that_are_logged() -> None:
    sources = [path.read_text(encoding="utf-8") for folder in ("app", "workers") for path in (ROOT / folder).rglob("*.py")]
    logged = "\n".join([*sources, (ROOT / "run.py").read_text(encoding="utf-8")]).replace('"link-%s: ', '"link-silent: ')
    names = first_column("What the log says")
    assert names
    assert [name for name in sorted(names) if f'"{name}: ' not in logged] == []
