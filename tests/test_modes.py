"""Whatever the umask is, what a server writes is for its own user alone."""

import os
import stat
from pathlib import Path

from tests.harness import Server, TextClient, WsClient

ANYBODY = 0o077


def test_files_and_directories_are_for_the_owner_alone(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o777)
    data.chmod(0o777)  # it was there before, and open to everyone
    tasks = ("--tasks", "tests.sample_tasks", "--tasks", "tests.wordy_tasks")
    server = Server(*tasks, "--workers", "1", data_dir=data, under=("sh", "-c", 'umask 000; exec "$@"', "sh"))
    try:
        use(server)
        assert open_to_others(data) == []
        kinds = {path.relative_to(data).parts[0].split("-")[0] for path in data.rglob("*")}
        assert {"journal.db", "journal.lock", "outbox", "run"} <= kinds
    finally:
        server.clean()
    assert open_to_others(data) == []


def use(server: Server) -> None:
    """So that everything is written that is ever written: a journal and its log, a mail, stacks, the word of a worker's end."""
    with WsClient(server.ws_url) as client:
        client.send({"id": "mail", "function": "send_mail", "args": {"from": "a@x.org", "to": "b@y.org", "contents": "hi"}})
        assert client.final("mail")["event"] == "succeeded"
        client.send({"id": "spins", "function": "spins", "args": ["x"]})
        client.final("spins", 20)
        client.send({"id": "process", "function": "crashes_in_process", "args": ["x"]})
        client.final("process", 20)
        client.send({"id": "crash", "function": "crashes", "args": ["x"]})
        assert client.final("crash", 20)["event"] == "interrupted"
    with TextClient(server.text_address) as line:
        assert line.ask({"function": "echo"}, 20) == {}


def open_to_others(directory: Path) -> list[str]:
    """What somebody else could read, change or enter."""
    paths = [directory, *directory.rglob("*")]
    return [f"{path} {mode:o}" for path in paths if (mode := stat.S_IMODE(os.lstat(path).st_mode)) & ANYBODY]
