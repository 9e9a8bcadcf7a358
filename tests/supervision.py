"""A real supervisord in the background, on our files as they are but for ports and counts, in a directory that is as a fresh clone."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.harness import ROOT, Process, TextClient, wait_until

PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
WORKERS = 2


class Supervised(Process):
    """Handoff under supervisord; every process of it is up when made. `form` is `whole` or `split`; `settings` go into the environment.
    The ports stay the same from one start to the next."""

    def __init__(self, clone: Path, form: str = "whole", settings: Mapping[str, str] | None = None, workers: int = WORKERS) -> None:
        self.clone, self.var, self.split = clone, clone / "var", form == "split"
        self._ports = [reserved(), reserved()]
        self.text_address: tuple[str, int] = self._ports[0].getsockname()
        self.ws_address: tuple[str, int] = self._ports[1].getsockname()
        self._lay_out(form)
        self.workers = workers
        self._sessions = set[int]()
        ours = {"WS": _joined(self.ws_address), "TEXT": _joined(self.text_address), "WORKERS": str(workers)}
        self._env = {f"HANDOFF_{name}": value for name, value in ours.items()} | dict(settings or {}) | {"PATH": PATH}
        if self.split:
            del self._env["HANDOFF_WORKERS"]
            self.count(workers)
        super().__init__(["supervisord", "-c", "supervisord.conf"], self._env, clone)
        try:
            self.wait_up()
        except AssertionError:
            self.kill()
            raise

    def _lay_out(self, form: str) -> None:
        (self.clone / "run.py").symlink_to(ROOT / "run.py")
        shutil.copy(ROOT / "supervisord.conf", self.clone)
        shutil.copytree(ROOT / "supervisord.d", self.clone / "supervisord.d")
        self.var.mkdir()
        shutil.copy(ROOT / "var/.gitignore", self.var)
        if form != "whole":
            self.edit("supervisord.conf", r"^files=.*$", f"files=supervisord.d/{form}.conf")
        self.edit("supervisord.d/split.conf", r"^socket=.*$", f"socket=tcp://{_joined(self.text_address)}")

    def edit(self, name: str, line: str, wanted: str) -> None:
        """Change one line of a file, as whoever runs it would."""
        path = self.clone / name
        text, changed = re.subn(line, wanted, path.read_text(), flags=re.MULTILINE)
        assert changed == 1, f"{line} stands {changed} times in {name}"
        path.write_text(text)

    def count(self, workers: int) -> None:
        """So many workers, in the file of the split form; supervisord does not know it yet."""
        self.edit("supervisord.d/split.conf", "^numprocs=.*$", f"numprocs={workers}")
        self.workers = workers

    @property
    def ws_url(self) -> str:
        """Of the gateway."""
        return f"ws://{_joined(self.ws_address)}/ws"

    def out(self) -> str:
        """What Handoff has said since the first start of supervisord."""
        return "".join(path.read_text(errors="replace") for path in sorted(self.var.glob("*.log")) if path.name != "supervisord.log")

    def log(self) -> str:
        """What supervisord has said, and Handoff."""
        return super().log() + self.supervisor_log() + self.out()

    def supervisor_log(self) -> str:
        """What supervisord alone has said."""
        path = self.var / "supervisord.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def ctl(self, *words: str) -> str:
        """What supervisorctl answers."""
        command = ["supervisorctl", "-c", "supervisord.conf", *words]
        done = subprocess.run(command, cwd=self.clone, env=os.environ | self._env, stdout=subprocess.PIPE, timeout=60, check=False)
        return done.stdout.decode().strip()

    def ctl_later(self, *words: str) -> subprocess.Popen[bytes]:
        """supervisorctl under way."""
        command = ["supervisorctl", "-c", "supervisord.conf", *words]
        return subprocess.Popen(command, cwd=self.clone, env=os.environ | self._env, stdout=subprocess.DEVNULL)

    def again(self) -> None:
        """Start supervisord once more, where it has ended; Handoff may take longer."""
        name, value = self._mark.split("=")
        command = ["supervisord", "-c", "supervisord.conf"]
        env = os.environ | self._env | {name: value}
        done = subprocess.run(command, cwd=self.clone, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False)
        assert done.returncode == 0, done.stderr.decode()

    def supervisor_pid(self) -> int:
        """The process of supervisord, which leads a session of its own."""
        pid = int(wait_until((self.var / "supervisord.pid").read_text))
        self._sessions.add(pid)
        return pid

    def _is_ours(self, pid: int) -> bool:
        """Also by the session, since a process may have written over its environment."""
        with suppress(OSError):
            state, _, _, session = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[:4]
            return super()._is_ours(pid) or (state not in "ZX" and int(session) in self._sessions)
        return False

    def kill_supervisor(self) -> None:
        """With SIGKILL."""
        os.kill(self.supervisor_pid(), signal.SIGKILL)

    def handoff(self) -> set[int]:
        """The processes of Handoff, without supervisord."""
        return self.tree() - {self.supervisor_pid()}

    def pids(self, name: str) -> list[int]:
        """Of the processes of supervisord's that are called so, or so and a number."""
        found = sorted((_comm(pid), pid) for pid in descendants(self.supervisor_pid()))
        return [pid for comm, pid in found if re.fullmatch(rf"{name}(-\d+)?", comm)]

    def worker_pids(self) -> list[int]:
        """The workers, by name."""
        return self.pids("worker")

    def name_of(self, pid: int) -> str:
        """As `worker-1`."""
        return _comm(pid)

    def gateway_pid(self) -> int:
        """The gateway; waits while it is being replaced."""
        return wait_until(lambda: self.pids("gateway"), 30.0, self.log)[0]

    def wait_up(self, before: set[int] | frozenset[int] = frozenset()) -> None:
        """Until there are as many workers as there should be, and a gateway that knows them, all of them new since `before`."""
        wait_until(lambda: self._is_up(before), 50.0, self.log)

    def _is_up(self, before: set[int] | frozenset[int]) -> bool:
        if not (self.var / "supervisord.pid").exists():
            return False
        workers, gateways = self.worker_pids(), self.pids("gateway")
        if (len(workers), len(gateways)) != (self.workers, 1) or before & {*workers, *gateways}:
            return False
        _, _, said = self.out().partition(f"gateway[{gateways[0]}]: link-up")
        return all(f"(pid {pid})" in said for pid in workers)

    def wait_state(self, state: str, name: str = "handoff") -> None:
        """Until `supervisorctl status` says so of it."""
        wait_until(lambda: re.search(rf"^{name} +({state})\b", self.ctl("status"), re.MULTILINE), 30.0, message=self.log)

    def ask(self, **request: Any) -> Any:
        """What the Text port answers."""
        with TextClient(self.text_address) as client:
            return client.ask(request)

    def clean(self) -> None:
        """End all of it, where that was not done."""
        try:
            if self.tree():
                self.ctl("shutdown")
                wait_until(lambda: not self.tree(), 30.0, self.describe)
        finally:
            for port in self._ports:
                port.close()
            super().clean()


def reserved(host: str = "127.0.0.1") -> socket.socket:
    """A port of this machine, bound and never listening: nobody else is given it between two starts of ours."""
    port = socket.socket()
    port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    port.bind((host, 0))
    return port


def _joined(address: tuple[str, int]) -> str:
    return f"{address[0]}:{address[1]}"


def descendants(pid: int) -> set[int]:
    """The children of a process, and theirs."""
    found: set[int] = set()
    with suppress(OSError):
        for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
            found |= {child} | descendants(child)
    return found


def _comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
