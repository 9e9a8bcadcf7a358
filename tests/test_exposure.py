"""No port opens to other machines by accident: the table of rules, and the command line that is held to it."""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app import exposure
from app.address import Address
from app.errors import SettingsError
from app.exposure import RULES, check
from app.secret import Secret
from app.settings import Settings, load
from app.table import TABLE
from tests.certificates import make_identities
from tests.harness import ROOT, Process, wait_until

OPEN, HERE = Address("10.0.0.5", 12345), Address("127.0.0.1", 12345)
SECRET = Secret(b"x" * 32)
AS_ROOT = {"HANDOFF_ALLOW_ROOT": "yes"}
"""The tests may be run by root, who is not what they are about."""


@pytest.fixture(autouse=True)
def not_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


def settings(*flags: str, **more: Any) -> Settings:
    return Settings(**{**{name: getattr(load(flags, {}), name) for name in Settings.__slots__}, **more})


@pytest.mark.parametrize("address", [HERE, Address("::1", 1), Address("localhost", 1), Address("", 0, "/run/x.sock")])
def test_of_what_only_this_machine_reaches_nothing_is_said(address: Address) -> None:
    assert check(settings(), {"worker": address, "gateway": address}) == []


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.5", "192.168.1.1", "fe80::1", "::ffff:127.0.0.1", "12.7.0.1"])
def test_workers_are_not_open_to_others_without_a_secret(host: str) -> None:
    with pytest.raises(SettingsError, match=r"^--text: .*any task.*--secret-file.*--text-ca.*--insecure-text yes$"):
        check(settings(), {"worker": Address(host, 1)})


def test_with_a_secret_they_are_and_the_lack_of_tls_is_said() -> None:
    (warning,) = check(settings(secret=SECRET), {"worker": OPEN})
    assert "in clear" in warning
    assert check(settings("--text", "tls://10.0.0.5:1", secret=SECRET), {"worker": OPEN}) == []


def test_certificates_do_as_well_but_not_the_servers_alone() -> None:
    ours, theirs = ("--text", "tls://10.0.0.5:1", "--text-cert", "/c.pem"), ("--text-ca", "/ca.pem")
    assert check(settings(*ours, *theirs), {"worker": OPEN}) == []
    with pytest.raises(SettingsError, match="any task"):
        check(settings(*ours), {"worker": OPEN})
    with pytest.raises(SettingsError, match="any task"):
        check(settings("--text", "10.0.0.5:1", *theirs), {"worker": OPEN})


ASKING = (("--tokens", "/tokens.toml"), ("--auth", "mycompany.auth"))
PAGES = ("--origins", "https://example.org")


@pytest.mark.parametrize("asking", ASKING)
def test_a_gateway_is_not_open_to_others_without_tokens_and_origins(asking: tuple[str, str]) -> None:
    for flags, said in (((), "--tokens"), (PAGES, "--tokens"), (asking, "--origins")):
        with pytest.raises(SettingsError, match=rf"^--ws: .*{said}.*--insecure-ws yes$"):
            check(settings(*flags), {"gateway": OPEN})
    (warning,) = check(settings(*asking, *PAGES), {"gateway": OPEN})
    assert "in clear" in warning
    assert check(settings(*asking, *PAGES, "--ws-cert", "/c.pem"), {"gateway": OPEN}) == []


def test_a_gateway_that_is_to_be_open_to_everyone_is_warned_of() -> None:
    warnings = check(settings("--insecure-ws", "yes"), {"gateway": OPEN})
    assert any(warning.startswith("the gateway at 10.0.0.5:12345 takes any task") for warning in warnings)


def test_who_says_so_in_so_many_words_is_warned() -> None:
    warnings = check(settings("--insecure-text", "yes"), {"worker": OPEN})
    assert any(warning.startswith("the worker at 10.0.0.5:12345 takes any task") for warning in warnings)


@pytest.mark.parametrize("role", ["worker", "gateway"])
def test_root_is_not_open_to_others(monkeypatch: pytest.MonkeyPatch, role: str) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(SettingsError, match=r"root.*--allow-root yes"):
        check(settings("--insecure-ws", "yes", secret=SECRET), {role: OPEN})
    allowed = settings("--allow-root", "yes", "--insecure-ws", "yes", secret=SECRET)
    assert any("root" in warning for warning in check(allowed, {role: OPEN}))
    assert check(settings(), {role: HERE}) == []


def test_a_certificate_that_nothing_is_sealed_with_is_a_mistake() -> None:
    with pytest.raises(SettingsError, match="tls://"):
        check(settings("--text-cert", "/c.pem"), {"worker": HERE})
    check(settings("--text-cert", "/c.pem", "--pool", "tls://10.0.0.6:1"), {"worker": HERE})


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_names_settings_that_there_are(rule: exposure.Rule) -> None:
    names = {setting.name for setting in TABLE}
    assert rule.role in exposure.FLAGS
    assert not rule.waiver or rule.waiver in names
    flags = {setting.flag for setting in TABLE}
    assert [word for word in rule.remedy.replace(",", " ").replace(")", " ").split() if word.startswith("--") and word not in flags] == []


# The command line.


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Any]:
    started: list[Process] = []

    def start(*flags: str, env: dict[str, str] | None = None) -> Process:
        command = [sys.executable, str(ROOT / "run.py"), *flags, "--data-dir", str(tmp_path / "data")]
        started.append(Process(command, env))
        return started[-1]

    yield start
    for process in started:
        process.clean()


def test_a_public_gateway_without_tokens_ends_the_start(run: Any) -> None:
    process = run("gateway", "--ws", "0.0.0.0:0", "--text", "127.0.0.1:0", "--workers", "1", env=AS_ROOT)
    assert process.wait() == 2
    assert "--tokens" in process.log().splitlines()[-1]
    assert "ready" not in process.out()


@pytest.mark.parametrize(("command", "text"), [("worker", "[::]:0"), ("start", "0.0.0.0:0"), ("worker", "tls://0.0.0.0:0")])
def test_a_public_port_without_a_secret_ends_the_start(run: Any, command: str, text: str) -> None:
    process = run(command, "--text", text, "--ws", "127.0.0.1:0", "--workers", "1", env=AS_ROOT)
    assert process.wait() == 2
    assert "--secret-file" in process.log().splitlines()[-1]
    assert "ready" not in process.out()


def test_with_a_secret_it_starts(run: Any) -> None:
    process = run("worker", "--text", "0.0.0.0:0", env={"HANDOFF_SECRET": "x" * 32, **AS_ROOT})
    wait_until(lambda: "ready\n" in process.out(), 30)
    assert "open-to-others: the worker at 0.0.0.0:" in process.log()


def test_a_secret_file_that_others_can_read_ends_the_start(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("x" * 64)
    path.chmod(0o644)
    process = run("worker", "--text", "127.0.0.1:0", "--secret-file", str(path))
    assert process.wait() == 2
    assert process.log() == f"handoff: --secret-file: others can get at {path} (mode 0644); chmod 600 {path}\n"


@pytest.mark.parametrize("command", ["worker", "start"])
def test_tls_without_a_usable_certificate_ends_the_start(run: Any, tmp_path: Path, command: str) -> None:
    ids = make_identities(tmp_path)
    for flags, why in ((), "--text-cert: TLS wants a certificate"), (("--text-cert", str(ids.ca)), "--text-cert"):
        process = run(command, "--text", "tls://127.0.0.1:0", "--ws", "127.0.0.1:0", "--workers", "1", *flags)
        assert process.wait() == 2
        assert why in process.log()


@pytest.mark.parametrize("command", ["gateway", "start"])
def test_a_gateway_whose_files_cannot_be_used_does_not_start(run: Any, command: str) -> None:
    process = run(command, "--ws", "127.0.0.1:0", "--pool", "tls://127.0.0.1:1", "--text-ca", "/nonexistent.pem")
    assert process.wait() == 2
    assert "--text-ca: cannot read /nonexistent.pem: No such file or directory" in process.log()


@pytest.mark.skipif(os.geteuid() != 0, reason="of root")
@pytest.mark.parametrize(("command", "flag"), [("gateway", "--ws"), ("worker", "--text"), ("start", "--ws")])
def test_root_has_to_be_allowed_to_be_open_to_others(run: Any, command: str, flag: str) -> None:
    other = "--text" if flag == "--ws" else "--ws"
    process = run(command, flag, "0.0.0.0:0", other, "127.0.0.1:0", env={"HANDOFF_SECRET": "x" * 32})
    assert process.wait() == 2
    assert process.log().splitlines()[-1].endswith("start it as a user of its own, or say --allow-root yes")


def test_the_page_about_it_names_tests_that_there_are() -> None:
    page = (ROOT / "docs/security.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(tests/\w+\.py)`", page))
    assert len(named) >= 5
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_page_about_it_names_settings_that_there_are() -> None:
    page = (ROOT / "docs/security.md").read_text(encoding="utf-8")
    begun = {setting.flag for setting in TABLE} | {"--direct", "--function", "--days"}
    named = set(re.findall(r"(?<![\w-])--[a-z]+(?:-[a-z]+)*", page))
    assert {"--secret-file", "--text-idle", "--allow-root"} <= named
    assert named - begun == set()
