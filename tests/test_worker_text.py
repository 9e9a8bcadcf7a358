"""The Text port in the short form: one JSON object a line, one bare JSON line back, from anything that can open a socket."""

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import Server, TextClient, wait_until

SEED = b'{"function":"send_mail","args":{"from":"a@x.org","to":"b@y.org","contents":"hi"}}\n'
TEXTS = (
    "مرحبا بالعالم، هذه رسالة",
    "😀👩‍👩‍👧‍👦🇪🇬",
    "\u2028\u2029\ufeff\u0000\x1f",
    '"\\/\b\f\n\r\t',
    "</script><b>&amp;",
    "\U0010ffff\ud7ff\ue000",
)


@pytest.fixture(scope="module")
def worker() -> Iterator[Server]:
    running = Server("worker", "--tasks", "tests.worker_tasks")
    yield running
    running.clean()


@pytest.fixture(scope="module", params=["tcp", "unix"])
def listening(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int] | str]:
    """A worker that listens on a port, and one that listens on a path."""
    path = str(tmp_path_factory.mktemp("text") / "text.sock")
    running = Server("worker", *(("--text", f"unix:{path}") if request.param == "unix" else ()))
    if request.param == "unix":
        assert f"workers listening on unix:{path}" in running.out()
    yield path if request.param == "unix" else running.text_address
    running.clean()


def exchange(address: tuple[str, int] | str, data: bytes) -> bytes:
    """Send this, say that nothing more comes, and give all that came back."""
    with TextClient(address) as client:
        client.send(data)
        client.half_close()
        return b"".join(iter(client.receive_line, b""))


def mails(server: Server) -> list[Path]:
    """What was delivered."""
    return list((server.data_dir / "outbox" / "new").glob("*"))


# The seed's protocol, to the letter.


def test_a_mail_is_sent_and_one_line_comes_back(worker: Server) -> None:
    before = len(mails(worker))
    with TextClient(worker.text_address) as client:
        client.send(SEED)
        assert client.receive_line() == b'{"sent":1}\n'
    assert len(mails(worker)) == before + 1


def test_one_connection_for_each_task(worker: Server) -> None:
    before = len(mails(worker))
    for _ in range(20):
        assert exchange(worker.text_address, SEED) == b'{"sent":1}\n'
    assert len(mails(worker)) == before + 20


def program(name: str) -> str:
    """Where it is; else the test is skipped, and says why."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def test_nc_gets_its_line(worker: Server) -> None:
    nc = program("nc")
    host, port = worker.text_address
    knows = subprocess.run([nc, "-h"], capture_output=True, check=False).stderr
    flags = ["-N"] if b"N" in knows.split(b"\n", 2)[1] else ["-q", "2"]
    ran = subprocess.run([nc, *flags, host, str(port)], input=SEED, capture_output=True, timeout=20, check=True)
    assert ran.stdout == b'{"sent":1}\n'


def test_nc_that_never_closes_its_side_gets_its_line_too(worker: Server) -> None:
    host, port = worker.text_address
    with subprocess.Popen([program("nc"), host, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as nc:
        assert nc.stdin is not None
        assert nc.stdout is not None
        for _ in range(3):
            nc.stdin.write(SEED)
            nc.stdin.flush()
            assert nc.stdout.readline() == b'{"sent":1}\n'
        nc.terminate()


PHP = r"""
foreach ([1, 2, 3] as $number) {
    $socket = stream_socket_client($argv[1], $code, $message, 10) or exit("cannot connect: $message");
    $task = ['function' => 'send_mail', 'args' => ['from' => 'a@x.org', 'to' => 'b@y.org', 'contents' => "مرحبا 😀 $number"]];
    fwrite($socket, json_encode($task) . "\n");
    $result = json_decode(fgets($socket), true);
    echo $result['sent'], "\n";
    fclose($socket);
}
$socket = stream_socket_client($argv[1]);
fwrite($socket, json_encode(['function' => 'echo', 'args' => ['text' => 'é/😀']]) . "\r\n");
echo fgets($socket);
"""


def test_php_gets_its_line(worker: Server) -> None:
    php = program("php")
    host, port = worker.text_address
    ran = subprocess.run([php, "-r", PHP, "--", f"tcp://{host}:{port}"], capture_output=True, timeout=30, check=False)
    assert ran.stdout.decode() == '1\n1\n1\n{"text":"é/😀"}\n', ran.stderr


def test_php_through_a_unix_socket(listening: tuple[str, int] | str) -> None:
    php = program("php")
    target = f"unix://{listening}" if isinstance(listening, str) else f"tcp://{listening[0]}:{listening[1]}"
    ran = subprocess.run([php, "-r", PHP, "--", target], capture_output=True, timeout=30, check=False)
    assert ran.stdout.decode() == '1\n1\n1\n{"text":"é/😀"}\n', ran.stderr


# Lines.


def test_lines_on_one_connection_are_answered_in_their_order(listening: tuple[str, int] | str) -> None:
    with TextClient(listening) as client:
        seconds = [0.15, 0.0, 0.1, 0.0, 0.0]
        client.send(b"".join(b'{"function":"sleep","args":[%r]}\n' % number for number in seconds))
        assert [client.receive() for _ in seconds] == seconds


def test_errors_stand_in_the_order_too(worker: Server) -> None:
    lines = [
        (b'{"function":"sleep","args":[0.1]}', 0.1),
        (b"nonsense", "bad_request"),
        (b'{"function":"none"}', "unknown_function"),
        (b'{"function":"sleep","args":{"seconds":"x"}}', "bad_arguments"),
        (b'{"function":"fail","args":["oh"]}', "failed"),
        (b"", "bad_request"),
        (b'{"function":"sleep","args":[0]}', 0),
    ]
    answers = exchange(worker.text_address, b"\n".join(line for line, _ in lines) + b"\n").splitlines()
    got = [answer["error"]["code"] if isinstance(answer, dict) else answer for answer in map(json.loads, answers)]
    assert got == [expected for _, expected in lines]


def test_a_line_may_come_byte_by_byte(listening: tuple[str, int] | str) -> None:
    with TextClient(listening) as client:
        for byte in b'{"function":"echo","args":{"a":"\xd9\x85"}}\r\n':
            client.send(bytes([byte]))
        assert client.receive_line() == '{"a":"م"}\n'.encode()


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_both_endings_are_taken_and_a_newline_given(listening: tuple[str, int] | str, ending: bytes) -> None:
    assert exchange(listening, b'{"function":"echo","args":{"a":1}}' + ending) == b'{"a":1}\n'


def test_a_side_that_is_closed_at_once_still_gets_the_answer(listening: tuple[str, int] | str) -> None:
    assert exchange(listening, b'{"function":"sleep","args":[0.15]}\n' * 2) == b"0.15\n0.15\n"


def test_a_last_line_without_its_ending_is_not_run(worker: Server) -> None:
    """Whether the rest of it was lost, nobody knows."""
    before = len(mails(worker))
    answer = json.loads(exchange(worker.text_address, SEED[:-1]))
    assert answer["error"]["code"] == "bad_request"
    assert "not ended" in answer["error"]["message"]
    assert len(mails(worker)) == before


@pytest.mark.parametrize("text", TEXTS)
def test_text_passes_unharmed(listening: tuple[str, int] | str, text: str) -> None:
    for line in (
        json.dumps({"function": "echo", "args": {text: [text]}}),
        json.dumps({"function": "echo", "args": {text: [text]}}, ensure_ascii=False),
    ):
        answer = exchange(listening, line.encode() + b"\n")
        assert json.loads(answer) == {text: [text]}
        assert answer.count(b"\n") == 1


@pytest.mark.parametrize(("args", "result"), [('{"a":1,"b":2}', {"a": 1, "b": 2}), ("{}", {})])
def test_arguments_by_name_by_position_or_none(worker: Server, args: str, result: object) -> None:
    assert json.loads(exchange(worker.text_address, f'{{"function":"echo","args":{args}}}\n'.encode())) == result
    assert json.loads(exchange(worker.text_address, b'{"function":"echo"}\n{"function":"echo","args":null}\n').split(b"\n")[0]) == {}
    assert exchange(worker.text_address, b'{"function":"sleep","args":[0]}\n') == b"0\n"


def test_what_a_generator_returns_is_the_result(worker: Server) -> None:
    assert exchange(worker.text_address, b'{"function":"countdown","args":[1,0]}\n') == b"null\n"


def test_a_client_that_vanishes_harms_nobody(worker: Server) -> None:
    before = len(mails(worker))
    for _ in range(10):
        client = TextClient(worker.text_address)
        client.send(b'{"function":"sleep","args":[0.1]}\n' + SEED)
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
    wait_until(lambda: len(mails(worker)) >= before)
    assert exchange(worker.text_address, b'{"function":"echo","args":{"n":1}}\n') == b'{"n":1}\n'
    wait_until(lambda: len(os.listdir(f"/proc/{worker.pid}/fd")) < 40)


def test_who_does_not_read_is_not_read_from(worker: Server) -> None:
    """Answers to somebody who takes none are not kept without end; once they are taken, everything is answered."""
    line, sent = b'{"ping":"' + b"x" * 60_000 + b'"}\n', 0
    with TextClient(worker.text_address) as client:
        client.socket.settimeout(1)
        stuck = False
        while not stuck and sent < 2000:
            stuck = not all_sent(client.socket, line)
            sent += not stuck
        assert stuck, "120 MB were taken from somebody who reads nothing"
        assert client.socket.fileno() >= 0
        got = sum(client.receive()["pong"][:1] == "x" for _ in range(sent))
        assert got == sent
    assert resident(worker.pid) < 150 << 20


def all_sent(sock: socket.socket, line: bytes) -> bool:
    """Send it all, or nothing that counts: what is left of it when the other side takes no more is lost with the connection."""
    try:
        sock.sendall(line)
    except TimeoutError:
        return False
    return True


def resident(pid: int) -> int:
    """Bytes of memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
