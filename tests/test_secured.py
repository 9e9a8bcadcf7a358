"""Gateway and workers apart, with a secret, TLS and certificates between them; the commands; and where the secret is not to be found."""

import base64
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.address import Address
from app.client import TaskClient
from app.entrance import Credentials
from app.errors import SettingsError, Unauthorized
from tests.certificates import Identities, make_identities
from tests.harness import ROOT, Process, Server, TextClient, WsClient, wait_until

CANARY = "kanarienvogel-0123456789-abcdefghij"

Start = Callable[..., Server]


@pytest.fixture(scope="module")
def ids(tmp_path_factory: pytest.TempPathFactory) -> Identities:
    return make_identities(tmp_path_factory.mktemp("ids"))


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[Server] = []

    def one(*flags: str, **more: Any) -> Server:
        started.append(Server(*flags, **more))
        return started[-1]

    yield one
    for server in started:
        server.clean()


@pytest.fixture
def lonely() -> Iterator[Callable[..., Process]]:
    """Starts a gateway that will find no workers, and so is never ready."""
    started: list[Process] = []

    def one(*flags: str, env: dict[str, str] | None = None) -> Process:
        started.append(Process([sys.executable, str(ROOT / "run.py"), "gateway", "--ws", "127.0.0.1:0", *flags], env))
        return started[-1]

    yield one
    for process in started:
        process.clean()


@pytest.fixture(scope="module")
def secret_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("secret") / "secret", CANARY)


def written(path: Path, text: str) -> Path:
    path.write_text(text + "\n")
    path.chmod(0o600)
    return path


def workers_at(server: Server) -> str:
    return server._address("workers listening on").removeprefix("text://")


def echo(gateway: Server) -> Any:
    with WsClient(gateway.ws_url) as client:
        client.send({"id": "e", "function": "echo", "args": {"text": "x" * 30_000}})
        return client.final("e", 20)


def tls(ids: Identities, cert: Path | None, mutual: bool = True) -> tuple[str, ...]:
    return (*(("--text-cert", str(cert)) if cert else ()), *(("--text-ca", str(ids.ca)) if mutual else ()))


def test_a_gateway_and_workers_elsewhere_share_a_secret(start: Start, secret_file: Path) -> None:
    worker = start("--secret-file", str(secret_file), "--workers", "2")
    gateway = start("gateway", "--pool", workers_at(worker), env={"HANDOFF_SECRET": CANARY})
    assert echo(gateway)["event"] == "succeeded"


def test_a_gateway_without_the_secret_or_with_another_has_no_workers(
    start: Start, lonely: Callable[..., Process], secret_file: Path
) -> None:
    worker = start("worker", "--secret-file", str(secret_file))
    for env in ({}, {"HANDOFF_SECRET": "x" * 40}):
        gateway = lonely("--pool", workers_at(worker), env=env)
        wait_until(lambda gateway=gateway: "worker-unreachable" in gateway.log(), 20)  # type: ignore[misc]
        line = next(line for line in gateway.log().splitlines() if "worker-unreachable" in line)
        assert "secret" in line, "it says what to do"
        assert "link-up" not in gateway.log()


def test_a_gateway_and_workers_each_show_a_certificate(start: Start, ids: Identities) -> None:
    worker = start("--text", "tls://127.0.0.1:0", *tls(ids, ids.server), "--workers", "2")
    gateway = start("gateway", "--pool", workers_at(worker), *tls(ids, ids.client))
    assert echo(gateway)["event"] == "succeeded"
    with WsClient(gateway.ws_url) as client:
        for number in range(200):
            client.send({"id": f"m{number}", "function": "echo", "args": {"text": "y" * 5_000}, "events": "final"})
        assert {client.receive(20)["event"] for _ in range(200)} == {"succeeded"}


@pytest.mark.parametrize("shown", ["nothing", "a stranger's"])
def test_a_gateway_without_a_certificate_that_the_workers_take_has_none(
    start: Start, lonely: Callable[..., Process], ids: Identities, shown: str
) -> None:
    worker = start("worker", "--text", "tls://127.0.0.1:0", *tls(ids, ids.server))
    gateway = lonely("--pool", workers_at(worker), *tls(ids, ids.stranger if shown != "nothing" else None))
    wait_until(lambda: "worker-unreachable" in gateway.log(), 20)
    assert "link-up" not in gateway.log()
    assert "unauthorized:" in worker.log()


@pytest.mark.parametrize("certificate", ["expired", "elsewhere"])
def test_a_gateway_does_not_believe_workers_with_a_wrong_certificate(
    start: Start, lonely: Callable[..., Process], ids: Identities, certificate: str
) -> None:
    worker = start("worker", "--text", "tls://127.0.0.1:0", *tls(ids, getattr(ids, certificate), False))
    gateway = lonely("--pool", workers_at(worker), *tls(ids, None))
    wait_until(lambda: "certificate of the other side is not accepted" in gateway.log(), 20)
    assert "link-up" not in gateway.log()


def test_secret_and_certificates_together_survive_a_lost_worker(start: Start, ids: Identities, secret_file: Path) -> None:
    worker = start("--text", "tls://127.0.0.1:0", *tls(ids, ids.server), "--secret-file", str(secret_file), "--workers", "1")
    gateway = start("gateway", "--pool", workers_at(worker), *tls(ids, ids.client), "--secret-file", str(secret_file))
    assert echo(gateway)["event"] == "succeeded"
    os.kill(worker.worker_pids()[0], signal.SIGKILL)
    wait_until(lambda: gateway.log().count("link-up") == 2, 30)
    with WsClient(gateway.ws_url) as client:
        client.send({"id": "after", "function": "echo"})
        assert client.final("after", 30)["event"] == "succeeded"


def test_a_worker_that_ends_gives_its_last_answers_under_tls(start: Start, ids: Identities) -> None:
    worker = start("worker", "--text", "tls://127.0.0.1:0", *tls(ids, ids.server, False))
    client = TaskClient(workers_at(worker), credentials=Credentials.from_files(ca=str(ids.ca)))
    connection = client._take()
    connection.send({"id": "last", "function": "sleep", "args": {"seconds": 0.5}})
    assert connection.receive(10)["event"] == "started"
    worker.send_signal(signal.SIGTERM)
    assert connection.receive(10)["event"] == "succeeded"
    connection.close()
    assert worker.wait() == 0


# Clients.


def test_the_command_and_the_client_have_the_same_credentials(start: Start, ids: Identities, secret_file: Path) -> None:
    worker = start("worker", "--text", "tls://127.0.0.1:0", *tls(ids, ids.server), "--secret-file", str(secret_file))
    there = workers_at(worker)
    flags = ["--text", there, *tls(ids, ids.client), "--secret-file", str(secret_file)]
    assert call(*flags) == (0, '{"text":"hi"}\n', "")
    code, out, error = call(*flags[:-2])
    assert (code, out) == (14, "")
    assert "--secret-file" in error
    paths = {"secret": str(secret_file), "ca": str(ids.ca), "cert": str(ids.client)}
    client = TaskClient(there, credentials=Credentials.from_files(**paths))
    assert client.call("echo", {"text": "hi"}) == {"text": "hi"}
    client.close()
    with pytest.raises(Unauthorized):
        TaskClient(there, credentials=Credentials.from_files(secret=paths["secret"], cert=paths["cert"])).call("echo")
    with pytest.raises(SettingsError, match="tls-ca: cannot read"):
        TaskClient(there, credentials=Credentials.from_files(ca="/nonexistent.pem")).call("echo")


def call(*flags: str, env: dict[str, str] | None = None) -> tuple[int, str, str]:
    command = [sys.executable, str(ROOT / "run.py"), "call", "--direct", *flags, "echo", "text=hi"]
    environ = {"PATH": os.environ["PATH"], **(env or {})}
    done = subprocess.run(command, env=environ, cwd="/", capture_output=True, text=True, timeout=30, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("patched", [False, True])
def test_the_client_is_the_same_with_gevent_and_without(start: Start, ids: Identities, secret_file: Path, patched: bool) -> None:
    worker = start("worker", "--text", "tls://127.0.0.1:0", *tls(ids, ids.server), "--secret-file", str(secret_file))
    program = f"""
from app.client import TaskClient
from app.entrance import Credentials
import sys
credentials = Credentials.from_files(secret={str(secret_file)!r}, ca={str(ids.ca)!r}, cert={str(ids.client)!r})
client = TaskClient({workers_at(worker)!r}, credentials=credentials)
print(*[len(client.call("echo", {{"text": "x" * 200_000}})["text"]) for _ in range(3)], "gevent" in sys.modules)
client.close()
"""
    if patched:
        program = "from gevent import monkey; monkey.patch_all()\n" + program
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=50, check=False)
    assert (done.stdout, done.stderr) == (f"200000 200000 200000 {patched}\n", "")


# Where the secret is not.


def spellings(word: str) -> list[bytes]:
    plain = word.encode()
    digests = [hashlib.new(name, plain).hexdigest().encode() for name in ("md5", "sha1", "sha256")]
    return [plain, plain.hex().encode(), base64.b64encode(plain).rstrip(b"="), plain[::-1], *digests]


def test_the_secret_is_found_nowhere(start: Start) -> None:
    """Not by tasks, however they run; not in what is said, logged, kept or printed; not in the environment or on a command line."""
    server = start(
        "--workers", "1", "--tasks", "tests.secret_tasks", "--log-level", "debug", "--tracebacks", "yes", env={"HANDOFF_SECRET": CANARY}
    )
    seen = []
    with WsClient(server.ws_url) as client:
        for name in ("look", "look_in_a_thread", "look_in_a_process"):
            client.send({"id": name, "function": name})
            final = client.final(name, 20)
            assert len(final["result"]) >= 5, "it did look at itself and the master"
            seen.append(json.dumps(final))
        seen.append(json.dumps(client.ask({"describe": True})))
        client.send({"id": "bad", "function": "fail", "args": ["oh"]})
        seen.append(json.dumps(client.final("bad", 20)))
    host, port = workers_at(server).rsplit(":", 1)
    with TextClient((host, int(port))) as text:
        seen.append(json.dumps(text.ask({"ping": CANARY[:3]})))
    for env in ({"HANDOFF_SECRET": CANARY + "x"}, {"HANDOFF_SECRET": CANARY}, {"HANDOFF_SECRET": CANARY[:20]}):
        seen += call("--text", workers_at(server), env=env)[1:]
    seen.append(subprocess.run([sys.executable, str(ROOT / "run.py"), "--help"], capture_output=True, text=True, check=True).stdout)
    for pid in server.tree():
        seen += [Path(f"/proc/{pid}/{name}").read_text(errors="replace") for name in ("environ", "cmdline")]
    server.stop()
    seen += [server.out(), server.log(), *(path.read_text(errors="replace") for path in server.data_dir.rglob("*") if path.is_file())]
    everything = "\n".join(seen).encode()
    assert b"unauthorized:" in everything, "the log is part of it"
    assert [spelling for spelling in spellings(CANARY) if spelling in everything] == []


def test_an_address_with_tls_is_written_as_it_is_read() -> None:
    for text in ("tls://10.0.0.5:12345", "tls://[::1]:1", "tls://workers.x.org:1"):
        assert str(Address.parse(text)) == text
        assert Address.parse(text).tls
    for text in ("tls://unix:/x", "tls://tls://a:1", "tls://a", "tls:a:1", "TLS://a:1"):
        with pytest.raises(SettingsError):
            Address.parse(text)
