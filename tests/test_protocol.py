"""docs/protocol.md is true: its lines are said to a real server and compared with what comes back, and its programs are run.

In a pattern `<word>` within a string stands for any text, elsewhere for any value (in a list: any values); the same word in the same block
stands for the same thing. `…` at the end of an object allows further keys.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from app import errors
from app.messages import Event, State
from app.proof import Doorkeeper, Prover
from app.secret import Secret
from tests.byhand import own_sockets
from tests.harness import ROOT, Client, Server, TextClient, WsClient

PAGE = (ROOT / "docs/protocol.md").read_text(encoding="utf-8")
NODE = Path(__file__).parent / "node"
MORE = "…"
SECRET = "0123456789abcdef0123456789abcdef"
"""Of the proof that the page shows."""
BETWEEN_OUR_OWN = {Event.DISPATCHED, Event.RETURNED, Event.DUE}
VARIES = {"text", "number", "functions"}
"""Words that stand for something else each time."""


class Block(NamedTuple):
    """A fenced part of the page."""

    line: int
    kind: str
    text: str


def blocks() -> list[Block]:
    found = re.finditer(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return [Block(PAGE.count("\n", 0, match.start()) + 1, match[1], match[2]) for match in found]


def talks() -> list[Block]:
    return [block for block in blocks() if block.kind in ("text", "websocket", "worker", "guarded")]


def programs() -> list[tuple[Block, str]]:
    """Each program with what it prints."""
    pairs = zip(blocks(), blocks()[1:], strict=False)
    return [(program, output.text) for program, output in pairs if output.kind == "output"]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    running = Server("--workers", "1")
    yield running
    running.clean()


@pytest.fixture(scope="module")
def guarded() -> Iterator[Server]:
    """Its workers want a proof of the secret."""
    running = Server("worker", env={"HANDOFF_SECRET": SECRET})
    yield running
    running.clean()


@pytest.fixture
def connect(server: Server, guarded: Server) -> Callable[[str], Client]:
    def to(kind: str) -> Client:
        if kind == "websocket":
            return WsClient(server.ws_url)
        if kind == "guarded":
            return TextClient(guarded.text_address)
        return TextClient(server.text_address if kind == "text" else own_sockets(server.data_dir)[0])

    return to


@pytest.mark.parametrize("block", talks(), ids=lambda block: f"line {block.line}")
def test_what_is_said_is_answered_as_it_is_written(connect: Callable[[str], Client], block: Block) -> None:
    meant: dict[str, Any] = {}
    with connect(block.kind) as client:
        for line in block.text.splitlines():
            who, _, said = line.partition(": ")
            if who == "C":
                said = re.sub(r"<(\w+)>", lambda found: meant.setdefault(found[1], f"some-{found[1]}"), said)
                client.send(said if block.kind == "websocket" else said.encode() + b"\n")
            else:
                assert who == "S", line
                assert_like(client.receive(), pattern(said), meant, line)
        if block.kind == "guarded":
            return
        client.send('{"ping": "end"}' if block.kind == "websocket" else b'{"ping": "end"}\n')
        assert client.receive() == {"pong": "end"}, "something more was said than the page has"


def pattern(line: str) -> Any:
    """The line as JSON, with placeholders as strings."""
    text = re.sub(r'(?<!["\w ])(<\w+>)|(?<=: )(<\w+>)', lambda found: json.dumps(found[0]), line)
    return json.loads(text.replace(f", {MORE}}}", f', "{MORE}": true}}'))


def assert_like(value: Any, wanted: Any, meant: dict[str, Any], line: str) -> None:
    where = f"{json.dumps(value)} is not as {line}"
    if type(wanted) is str and (found := re.fullmatch(r"<(\w+)>", wanted)):
        assert found[1] in VARIES or meant.setdefault(found[1], value) == value, where
    elif type(wanted) is dict:
        assert type(value) is dict, where
        keys = wanted.keys() - {MORE}
        assert keys <= value.keys() if MORE in wanted else keys == value.keys(), where
        for key in keys:
            assert_like(value[key], wanted[key], meant, line)
    elif type(wanted) is list and not (len(wanted) == 1 and wanted[0] == "<functions>"):
        assert type(value) is list, where
        assert len(value) == len(wanted), where
        for one, like in zip(value, wanted, strict=True):
            assert_like(one, like, meant, line)
    elif type(wanted) is list:
        assert all({"name", "doc", "params", "options"} <= entry.keys() for entry in value), where
    else:
        assert (type(value), value) == (type(wanted), wanted), where


def test_the_comparison_sees_a_difference() -> None:
    like = pattern('{"id": "<id>", "n": <number>, "list": [<functions>], …}')
    same: dict[str, Any] = {"id": "a", "n": 3, "list": [], "new": 1}
    assert_like(same, like, {}, "")
    for other in ({**same, "id": "b"}, {key: same[key] for key in ("id", "n")}, {**same, "list": [{}]}):
        with pytest.raises(AssertionError):
            assert_like(other, like, {"id": "a"}, "")
    with pytest.raises(AssertionError):
        assert_like({"n": 1, "more": 2}, pattern('{"n": 1}'), {}, "")
    with pytest.raises(AssertionError):
        assert_like({"n": True}, pattern('{"n": 1}'), {}, "")


@pytest.mark.parametrize(("program", "output"), programs(), ids=lambda part: f"line {part.line}" if isinstance(part, Block) else "")
def test_the_programs_do_what_the_page_says(server: Server, guarded: Server, program: Block, output: str, tmp_path: Path) -> None:
    command, name = command_for(program)
    code = program.text.replace("127.0.0.1:8080", server.ws_url.split("/")[2]).replace("12346", str(guarded.text_address[1]))
    (tmp_path / "secret").write_text(SECRET + "\n")
    (tmp_path / "secret").chmod(0o600)
    code = code.replace("127.0.0.1:12345", "{}:{}".format(*server.text_address)).replace("12345", str(server.text_address[1]))
    (tmp_path / name).write_text(code, encoding="utf-8")
    for needed in ("app", "tests/node/node_modules"):
        (tmp_path / Path(needed).name).symlink_to(ROOT / needed)
    options: Any = {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 30, "check": False}
    ran = subprocess.run([*command, name], env={"PYTHONPATH": str(ROOT), "PATH": "/usr/local/bin:/usr/bin:/bin"}, **options)
    assert (ran.stdout, ran.stderr) == (output, "")


def command_for(program: Block) -> tuple[list[str], str]:
    """What runs it, and a name for its file; skips the test where this machine has not got it."""
    kinds = {"sh": ("nc", ["sh"], "it.sh"), "php": ("php", ["php"], "it.php"), "js": ("node", ["node"], "it.mjs")}
    if program.kind == "python":
        return [sys.executable, "-W", "error"], "it.py"
    needed, command, name = kinds[program.kind]
    if shutil.which(needed) is None:
        pytest.skip(f"{needed} is not installed")
    if '"ws"' in program.text and not (NODE / "node_modules" / "ws").is_dir():
        pytest.skip("npm's ws is not installed: npm ci --prefix tests/node")
    return command, name


def test_the_proof_that_the_page_shows_is_the_one_that_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    (lines,) = [block.text.encode().splitlines(keepends=True) for block in blocks() if block.kind == "lines"]
    nonces = [bytes.fromhex(json.loads(line[3:])["hello"]["nonce"]) for line in lines[:2]]
    monkeypatch.setattr("secrets.token_bytes", lambda size: nonces.pop(0))
    prover, doorkeeper = Prover(Secret(SECRET.encode())), Doorkeeper(Secret(SECRET.encode()))
    said = [hello := prover.hello(), answer := doorkeeper.hello(hello), proof := prover.prove(answer), doorkeeper.welcome(proof)]
    assert [json.loads(line) for line in said] == [json.loads(line[3:]) for line in lines]


def test_every_event_state_and_code_has_its_place_on_the_page() -> None:
    words = set(re.findall(r"`([a-z_]+)`", PAGE))
    assert {event.value for event in Event if event not in BETWEEN_OUR_OWN} <= words
    assert {state.value for state in State} <= words
    codes = {kind.code for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.HandoffError)}
    assert codes <= words
