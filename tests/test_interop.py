"""Clients that others wrote: websocket-client from PyPI and ws from npm, against the gateway with and without a handler."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import websocket

from tests.harness import Server

NODE = Path(__file__).parent / "node"
ODD_TEXTS = ["", "plain", "سلام عليكم", "emoji 👩‍👩‍👧 \U0001f4ec", "\x00\x7f", "ж" * 30000]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    running = Server("--workers", "1", "--handler", "examples.echo_gateway", "--ping-interval", "1")
    yield running
    running.clean()


def root(server: Server) -> str:
    """Where the handler is."""
    return server.ws_url.removesuffix("ws")


def test_websocket_client_echoes_text_and_binary(server: Server) -> None:
    client = websocket.create_connection(root(server), timeout=10)
    for text in ODD_TEXTS:
        client.send(text)
        assert client.recv() == text
    for payload in (b"", b"\x00\xff", bytes(range(256)) * 250):
        client.send_binary(payload)
        assert client.recv() == payload
    client.close(1000, b"done")


def test_websocket_client_is_told_the_code_of_the_close(server: Server) -> None:
    client = websocket.create_connection(server.ws_url, timeout=10)
    client.send_binary(b"not here")
    opcode, payload = client.recv_data(control_frame=True)
    assert opcode == websocket.ABNF.OPCODE_CLOSE
    assert int.from_bytes(payload[:2], "big") == 1003
    client.shutdown()


def test_websocket_client_sees_a_refused_origin_as_403(server: Server) -> None:
    with pytest.raises(websocket.WebSocketBadStatusException) as caught:
        websocket.create_connection(server.ws_url, timeout=10, origin="https://evil.example")
    assert caught.value.status_code == 403


def test_websocket_client_runs_a_task_in_its_long_running_form(server: Server) -> None:
    events: list[Any] = []

    def on_open(app: websocket.WebSocketApp) -> None:
        app.send(json.dumps({"function": "echo", "args": {"text": "سلام"}, "id": "a"}))

    def on_message(app: websocket.WebSocketApp, message: str) -> None:
        events.append(json.loads(message))
        if "result" in events[-1]:
            app.close()

    websocket.WebSocketApp(server.ws_url, on_open=on_open, on_message=on_message).run_forever()
    assert [event["event"] for event in events] == ["accepted", "started", "succeeded"]
    assert events[-1]["result"] == {"text": "سلام"}


SCRIPT = """
import { WebSocket } from "ws";
const [, , echo, tasks, textsAsJson] = process.argv;
const texts = JSON.parse(textsAsJson);
const payloads = [...texts, Buffer.alloc(0), Buffer.from([0, 255]), Buffer.alloc(65000, 7)];
const said = [];

function talk(url, toSend, onEach) {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(url, { perMessageDeflate: true });
    const heard = [];
    socket.on("open", () => toSend.forEach((one) => socket.send(one)));
    socket.on("error", reject);
    socket.on("message", (data, isBinary) => {
      heard.push(isBinary ? data : data.toString());
      if (onEach(heard)) socket.close(4000, "enough");
    });
    socket.on("close", (code) => resolve({ heard, code }));
  });
}

const echoed = await talk(echo, payloads, (heard) => heard.length === payloads.length);
said.push(echoed.code, payloads.every((one, i) => Buffer.compare(Buffer.from(one), Buffer.from(echoed.heard[i])) === 0));
const pinged = await new Promise((resolve) => {
  const socket = new WebSocket(echo);
  socket.on("open", () => socket.ping("are you there"));
  socket.on("pong", (data) => { resolve(data.toString()); socket.terminate(); });
});
said.push(pinged);
const ran = await talk(tasks, [JSON.stringify({ function: "echo", args: { n: 1 }, id: "n" })], (heard) => heard.at(-1).includes("result"));
said.push(ran.code, JSON.parse(ran.heard.at(-1)).result);
const refused = await new Promise((resolve) => {
  const socket = new WebSocket(tasks, { origin: "https://evil.example" });
  socket.on("unexpected-response", (_, response) => { resolve(response.statusCode); socket.terminate(); });
  socket.on("error", () => {});
});
said.push(refused);
const binary = await talk(tasks, [Buffer.from([1])], () => false);
said.push(binary.code);
console.log(JSON.stringify(said));
"""


def test_ws_of_npm_talks_to_handler_and_built_in_gateway(server: Server) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    if not (NODE / "node_modules" / "ws").is_dir():
        pytest.skip("npm's ws is not installed: npm ci --prefix tests/node")
    command = [node, "--input-type=module", "-", root(server), server.ws_url, json.dumps(ODD_TEXTS, ensure_ascii=False)]
    ran = subprocess.run(command, input=SCRIPT, cwd=NODE, capture_output=True, text=True, timeout=50, check=False)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == [4000, True, "are you there", 4000, {"n": 1}, 403, 1003]
