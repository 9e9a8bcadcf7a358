"""Root becomes somebody else: every process, for good, with files that this one can use. As root alone; what refuses, as anybody."""

import os
import pwd
import signal
import stat
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app import privileges
from app.errors import SettingsError
from tests.harness import ROOT, Process, Server, TextClient, WsClient, wait_until

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
Start = Callable[..., Server]


@pytest.fixture(scope="module")
def user() -> Iterator[pwd.struct_passwd]:
    """A user of the machine with a group of their own, and one group more."""
    name = f"handoff-{uuid.uuid4().hex[:8]}"
    subprocess.run(["useradd", "--no-create-home", "--user-group", "--groups", "users", name], check=True)
    known = pwd.getpwnam(name)
    tried = subprocess.run([sys.executable, "-c", "import gevent"], user=known.pw_uid, group=known.pw_gid, cwd="/", check=False)
    try:
        if tried.returncode != 0:
            pytest.skip("this Python, or what is installed for it, is root's alone")
        yield known
    finally:
        subprocess.run(["userdel", name], check=True)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that others may walk through, which is root's."""
    with tempfile.TemporaryDirectory(prefix="handoff-test-") as path:
        os.chmod(path, 0o755)
        yield Path(path)


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


@needs_root
def test_every_process_is_that_user_for_good_and_so_is_who_comes_after(start_server: Start, user: pwd.struct_passwd, place: Path) -> None:
    server = start_server("--user", user.pw_name, "--ws", "127.83.0.1:83", data_dir=place / "data")
    os.kill(server.worker_pids()[0], signal.SIGKILL)
    server.send_signal(signal.SIGHUP)
    wait_until(lambda: "reload-done" in server.log(), 30, server.log)
    wait_until(lambda: len(server.tree()) == 4, 10, server.describe)
    for pid in server.tree():
        said = status(pid)
        assert set(said["Uid"].split()) == {str(user.pw_uid)}
        assert set(said["Gid"].split()) == {str(user.pw_gid)}
        assert sorted(map(int, said["Groups"].split())) == sorted(os.getgrouplist(user.pw_name, user.pw_gid))
        assert said["NoNewPrivs"] == "1"
        assert {said[name] for name in ("CapPrm", "CapEff", "CapInh", "CapAmb")} == {"0" * 16}
    with WsClient(server.ws_url) as client:
        client.send({"id": "t1", "function": "primes", "args": {"below": 100}})
        assert client.final("t1")["event"] == "succeeded"
    owners = {path.stat().st_uid for path in (server.data_dir, *server.data_dir.rglob("*"))}
    assert owners == {user.pw_uid}
    assert "running as root" not in server.log()
    server.send_signal(signal.SIGKILL)
    wait_until(lambda: not server.tree(), 2.0, server.describe)


@needs_root
def test_a_task_has_the_users_home_and_cannot_be_root_again(start_server: Start, user: pwd.struct_passwd, place: Path) -> None:
    code = (
        "import os, subprocess\nfrom workers import task\n\n@task\ndef whoami():\n"
        "    try:\n        os.setuid(0)\n    except PermissionError:\n        pass\n"
        "    return [os.getuid(), os.path.expanduser('~'), os.environ['USER'], subprocess.getoutput('id -u')]\n"
    )
    (place / "mine.py").write_text(code)
    server = start_server("--user", str(user.pw_uid), "--group", "users", "--tasks", "mine", cwd=place, data_dir=place / "data")
    with TextClient(server.text_address) as client:
        assert client.ask({"function": "whoami"}) == [user.pw_uid, user.pw_dir, user.pw_name, str(user.pw_uid)]


@needs_root
@pytest.mark.parametrize("command", ["gateway", "worker"])
def test_one_process_alone_becomes_that_user_too(start_server: Start, user: pwd.struct_passwd, place: Path, command: str) -> None:
    if command == "gateway":
        start_server("worker", "--user", user.pw_name, data_dir=place / "data")
    server = start_server(command, "--user", user.pw_name, data_dir=place / "data")
    assert set(status(server.pid)["Uid"].split()) == {str(user.pw_uid)}
    assert status(server.pid)["NoNewPrivs"] == "1"


@needs_root
def test_sockets_and_the_pid_file_may_lie_where_only_root_writes(start_server: Start, user: pwd.struct_passwd, place: Path) -> None:
    flags = ("--text", f"unix:{place}/text.sock", "--pid-file", f"{place}/handoff.pid")
    server = start_server("--user", user.pw_name, *flags, data_dir=place / "data")
    assert {path.stat().st_uid for path in place.iterdir()} == {user.pw_uid}
    assert stat.S_IMODE((place / "text.sock").stat().st_mode) == 0o600
    assert (place / "handoff.pid").read_text() == f"{server.pid}\n"
    assert server.stop() == 0
    assert (place / "handoff.pid").read_text() == ""


@needs_root
def test_files_of_root_in_the_data_directory_end_the_start_with_advice(user: pwd.struct_passwd, place: Path) -> None:
    data = place / "data"
    (data / "run").mkdir(parents=True)
    (data / "journal.db").touch(0o600)
    process = run("--user", user.pw_name, "--data-dir", str(data))
    assert process.wait() == 2
    assert f"chown -R {user.pw_name} {data}" in process.log().splitlines()[-1]
    process.clean()


@needs_root
def test_what_a_link_in_the_users_directory_leads_to_is_left_alone(user: pwd.struct_passwd, place: Path) -> None:
    """The user has put links where root would write."""
    (place / "secret").write_text("root's own\n")
    (place / "secret").chmod(0o600)
    data = place / "data"
    (data / "run").mkdir(parents=True)
    os.link(place / "secret", data / "my.pid")
    os.symlink(place / "secret", data / "run/master.lock")
    for path in (data, data / "run"):
        os.chown(path, user.pw_uid, user.pw_gid)
    process = run("--user", user.pw_name, "--data-dir", str(data))
    assert process.wait() != 0
    (data / "run/master.lock").unlink()
    again = run("--user", user.pw_name, "--data-dir", str(data), "--pid-file", str(data / "my.pid"))
    assert again.wait() == 2
    assert "--pid-file: cannot write to" in again.log()
    found = (place / "secret").stat()
    assert ((place / "secret").read_text(), found.st_uid, stat.S_IMODE(found.st_mode)) == ("root's own\n", 0, 0o600)
    for each in (process, again):
        each.clean()


@needs_root
def test_only_root_becomes_somebody_else(user: pwd.struct_passwd, place: Path) -> None:
    words = ["import os; from app.privileges import identity", f"os.setuid({user.pw_uid})", "identity('root', '')"]
    ran = subprocess.run([sys.executable, "-c", "\n".join(words)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "only root can become root" in ran.stderr


def run(*flags: str) -> Process:
    ports = ("--ws", "127.0.0.1:0", "--text", "127.0.0.1:0", "--workers", "1")
    return Process([sys.executable, str(ROOT / "run.py"), *flags, *ports])


@pytest.mark.parametrize(
    ("who", "said"),
    [
        (("nosuchuser", ""), "--user: there is no user 'nosuchuser'"),
        (("999999999999999999999", ""), "--user: there is no user"),
        (("", "users"), "--group: wants --user as well"),
        (("daemon", "nosuchgroup"), "--group: there is no group 'nosuchgroup'"),
    ],
)
def test_nobody_is_said_so(who: tuple[str, str], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        privileges.identity(*who)


def test_whoever_it_is_already_is_nobody_else() -> None:
    own = pwd.getpwuid(os.getuid())
    assert privileges.identity(own.pw_name, str(os.getgid())) == privileges.Identity()
