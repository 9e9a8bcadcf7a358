"""A headless Chromium for tests, driven by the DevTools protocol: start it, look at pages, click, type, reload, take pictures.

What a page must do is in test_page.py. Nothing here is asynchronous: a command waits for its answer, and what the browser says meanwhile
(errors on the console, exceptions, refused content) is kept in `Page.problems`.
"""

import base64
import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import websocket

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-breakpad",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
)
PATIENCE = 15.0
"""Seconds for whatever the browser or a page is waited for."""


class BrowserError(Exception):
    """The browser refused a command, or a page threw where it was asked something."""


def find_chromium() -> str | None:
    """The browser on PATH, if there is one."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


class Browser:
    """One browser process tree with an empty profile; gone, with all its children and files, when the block ends."""

    def __init__(self, program: str) -> None:
        self._profile = Path(tempfile.mkdtemp(prefix="handoff-browser-"))
        self._process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={self._profile}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            self._address = f"127.0.0.1:{self._debugging_port()}"
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def page(self) -> "Page":
        """A new tab, with a session storage of its own and, as tabs of one browser have it, a shared local storage."""
        request = urllib.request.Request(f"http://{self._address}/json/new?about:blank", method="PUT")
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return Page(json.load(answer)["webSocketDebuggerUrl"])

    @contextmanager
    def shows(self, url: str, until: str) -> Iterator["Page"]:
        """A tab with this page, once the expression is true there; nothing may go wrong on it until the block ends."""
        tab = self.page()
        tab.emulate()
        tab.goto(url)
        tab.wait_until(until)
        yield tab
        assert tab.problems == []
        tab.close()

    def close(self) -> None:
        """End the browser: asked first, so that it takes its children along, then killed."""
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        deadline = time.monotonic() + PATIENCE
        while pids := self._left_over():
            for pid in pids:
                _kill(pid)
            if time.monotonic() > deadline:
                raise BrowserError(f"the browser's processes {pids} cannot be ended")
            time.sleep(0.02)
        shutil.rmtree(self._profile, ignore_errors=True)

    def _debugging_port(self) -> int:
        written = self._profile / "DevToolsActivePort"
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self._process.poll() is None:
            if written.exists() and "\n" in (text := written.read_text()):
                return int(text.splitlines()[0])
            time.sleep(0.02)
        raise BrowserError(f"the browser did not open its debugging port (exit code {self._process.poll()})")

    def _left_over(self) -> list[int]:
        """Its processes by the profile's path, which every one has in its command line, whatever session it moved to."""
        mark = os.fsencode(self._profile)
        return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and mark in _command_line(entry)]


class Page:
    """One tab."""

    def __init__(self, debugger: str) -> None:
        self.problems: list[str] = []
        self._numbers = itertools.count(1)
        self._loaded = False
        self._socket = websocket.create_connection(debugger, timeout=PATIENCE, suppress_origin=True)
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.command(f"{domain}.enable")

    def command(self, method: str, **params: Any) -> dict[str, Any]:
        """Send one command of the DevTools protocol; gives its result. Raises `BrowserError` where it is refused."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while (message := self._receive()).get("id") != number:
            pass
        if "error" in message:
            raise BrowserError(f"{method}: {message['error']['message']}")
        result: dict[str, Any] = message["result"]
        return result

    def goto(self, url: str) -> None:
        """Open an address and wait until it has loaded."""
        self._load("Page.navigate", url=url)

    def reload(self) -> None:
        """As the user's reload button; waits until it has loaded."""
        self._load("Page.reload")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, awaited where it is a promise."""
        answer = self.command("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise BrowserError(f"{expression}: {details.get('exception', {}).get('description', details['text'])}")
        return answer["result"].get("value")

    def wait_until(self, expression: str, timeout: float = PATIENCE) -> Any:
        """The value of an expression once it is true; AssertionError, with what the page shows, after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while not (value := self.evaluate(expression)):
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {timeout} s: {expression}\nproblems: {self.problems}\n{self.text('body')}")
            time.sleep(0.02)
        return value

    def text(self, selector: str) -> str:
        """What the first element that matches shows; empty where there is none."""
        return str(self.evaluate(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    def click(self, selector: str) -> None:
        """A mouse click in the middle of the element, which may be anywhere on the page."""
        middle = self.evaluate(f"""(() => {{
            const element = document.querySelector({json.dumps(selector)});
            element.scrollIntoView({{ block: "center", behavior: "instant" }});
            const box = element.getBoundingClientRect();
            return [box.x + box.width / 2, box.y + box.height / 2];
        }})()""")
        for kind in ("mousePressed", "mouseReleased"):
            self.command("Input.dispatchMouseEvent", type=kind, x=middle[0], y=middle[1], button="left", clickCount=1)

    def fill(self, selector: str, text: str) -> None:
        """Replace what a text field holds, as typing does."""
        self.evaluate(f"(() => {{ const field = document.querySelector({json.dumps(selector)}); field.focus(); field.select(); }})()")
        self.command("Input.insertText", text=text)

    def press(self, key: str, modifiers: int = 0) -> None:
        """A key by its DOM name, such as Tab or Enter; modifiers: 1 Alt, 2 Ctrl, 4 Meta, 8 Shift."""
        code = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "End": 35, "Home": 36, "ArrowUp": 38, "ArrowDown": 40}[key]
        text = {"Enter": "\r", " ": " "}.get(key, "") if not modifiers else ""
        down = {"type": "keyDown", "text": text} if text else {"type": "rawKeyDown"}
        for event in (down, {"type": "keyUp"}):
            self.command("Input.dispatchKeyEvent", **event, key=key, code=key, windowsVirtualKeyCode=code, modifiers=modifiers)

    def emulate(self, width: int = 1280, height: int = 900, *, mobile: bool = False, dark: bool = False) -> None:
        """The size of the window in CSS pixels, a phone or not, and the colour scheme that the user prefers."""
        scale = 2 if mobile else 1
        self.command("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=mobile)
        preferred = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.command("Emulation.setEmulatedMedia", features=[preferred])

    def screenshot(self, path: Path) -> None:
        """The whole page as PNG, also what is below the window."""
        picture = self.command("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(picture["data"]))

    def picture(self, path: Path) -> None:
        """What the window shows, as PNG."""
        path.write_bytes(base64.b64decode(self.command("Page.captureScreenshot", format="png")["data"]))

    def close(self) -> None:
        """Close the tab."""
        self.command("Page.close")
        self._socket.close()

    def _load(self, method: str, **params: Any) -> None:
        self._loaded = False
        self.command(method, **params)
        while not self._loaded:
            self._receive()

    def _receive(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self._socket.recv())
        params = message.get("params", {})
        match message.get("method"):
            case "Page.loadEventFired":
                self._loaded = True
            case "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                self.problems.append(details.get("exception", {}).get("description", details["text"]))
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning", "assert"):
                self.problems.append(" ".join(str(argument.get("value", argument)) for argument in params["args"]))
            case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                self.problems.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        return message


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # it ended by itself in the meantime


def _command_line(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
