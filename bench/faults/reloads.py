"""The rows of the reloads: HUP again and again under load, while somebody knocks at both ports all the time."""

import json
import os
import signal
import socket
import threading
import time
from contextlib import suppress
from typing import Any

import websocket

from bench.faults.accounts import Accounts
from bench.faults.kills import ALL, FLAGS
from bench.faults.stage import Plan, Stage, staged
from tests.harness import WsClient, wait_until

RESTARTING = 1012
_PAUSE = 0.002


class Knocker(threading.Thread):
    """Connects to the gateway (handshake, ping) and to the workers (one short task), as fast as it is answered. `refused` is what went
    wrong; a connection that is closed with 1012 after its handshake is none of it."""

    def __init__(self, ws_url: str, text: tuple[str, int]) -> None:
        super().__init__(daemon=True)
        self._ws_url = ws_url
        self._text = text
        self._left = threading.Event()
        self.knocks = self.restarts = 0
        self.refused: list[str] = []

    def run(self) -> None:
        """Until `stop`."""
        while not self._left.wait(_PAUSE):
            for knock in (self._at_the_gateway, self._at_the_workers):
                try:
                    knock()
                except (OSError, ValueError, websocket.WebSocketException) as error:
                    self.refused.append(f"{knock.__name__}: {type(error).__name__}: {error}")
                self.knocks += 1

    def stop(self) -> None:
        """Knock no more."""
        self._left.set()
        self.join()

    def _at_the_gateway(self) -> None:
        knock = websocket.create_connection(self._ws_url, timeout=20)
        try:
            knock.send('{"ping":1}')
            opcode, frame = knock.recv_data()
            code = int.from_bytes(frame[:2], "big") if opcode == websocket.ABNF.OPCODE_CLOSE else 0
            self.restarts += code == RESTARTING
            if code not in (0, RESTARTING):
                self.refused.append(f"closed with {code}")
        finally:
            knock.shutdown()  # type: ignore[no-untyped-call]

    def _at_the_workers(self) -> None:
        with socket.create_connection(self._text, timeout=20) as knock, knock.makefile("rb") as answers:
            knock.sendall(b'{"function":"wide","args":[3]}\n')
            answer = answers.readline()
            if answer and "error" in (said := json.loads(answer)):
                self.refused.append(f"said {said}")
            elif not answer:
                self.refused.append("closed without an answer")


def hup(plan: Plan) -> Accounts:
    """HUP twenty times under load: no refused connect, no lost task, nothing is interrupted, and one task spans several reloads."""
    with staged("HUP", plan, ALL, *FLAGS) as stage:
        knocker = Knocker(stage.house.ws_url, stage.house.text_address)
        knocker.start()
        with WsClient(stage.house.ws_url) as browser:
            stage.driver.add({"id": "spans", "function": "once", "args": [60.0 if plan.long else 4.0]})
            wait_until(lambda: stage.driver.tasks["spans"].seq > 1, 20, stage.state)
            code = _reload_again_and_again(stage, browser)
        knocker.stop()
        accounts = stage.books()
    spans = accounts.tasks["spans"]
    accounts.want(spans.final["event"] == "succeeded" and spans.final["attempt"] == 1, f"the long one: {spans.final}")
    accounts.want(code == RESTARTING, f"a browser that did nothing was closed with {code}")
    accounts.want(not knocker.refused, f"{len(knocker.refused)} of {knocker.knocks} knocks: {knocker.refused[:3]}")
    accounts.want(not accounts.interrupted, f"I = {len(accounts.interrupted)}")
    accounts.want(accounts.extra == 0, f"E = {accounts.extra}")
    accounts.remarks.append(f"{knocker.knocks} knocks, {knocker.restarts} of them answered with 1012, {len(knocker.refused)} refused")
    return accounts


def _reload_again_and_again(stage: Stage, browser: WsClient) -> Any:
    """With what code a browser was closed at the first."""
    code, took = 0, []
    for _ in stage.portions():
        began, before = time.monotonic(), stage.house.log().count("reload-done")
        os.kill(stage.house.pid, signal.SIGHUP)
        stage.kills += 1
        wait_until(lambda before=before: stage.house.log().count("reload-done") > before, 60, stage.state)  # type: ignore[misc]
        took.append(time.monotonic() - began)
        if not code:
            code = _close_code(browser)
    stage.remarks.append(f"a reload took {max(took):.2f} s at most")
    return code


def _close_code(browser: WsClient) -> int:
    with suppress(websocket.WebSocketException, OSError):
        browser.socket.settimeout(10)
        opcode, frame = browser.socket.recv_data()
        browser.socket.shutdown()  # type: ignore[no-untyped-call]
        return int.from_bytes(frame[:2], "big") if opcode == websocket.ABNF.OPCODE_CLOSE else -opcode
    return -1
