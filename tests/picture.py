"""Makes docs/page.png: the page at / in a headless Chromium, of a real server that really works. Not a test.

python -m tests.picture
"""

import sys
import time
from pathlib import Path

from tests.browser import Browser, find_chromium
from tests.harness import ROOT, Server, WsClient

FOR = 30.0
"""Seconds for which it works before the picture is taken, so that the charts have something to show."""

LARGEST = 150_000


def work(client: WsClient, page_is_open_until: float) -> None:
    """Tasks of several kinds, more than there are slots for now and then."""
    number = 0
    while time.monotonic() < page_is_open_until:
        number += 1
        client.send({"function": "countdown", "args": {"start": 10 + number % 40, "interval": 0.1}, "events": "final"})
        client.send({"function": "echo", "args": {"order": number}, "events": "final"})
        if number % 9 == 0:
            client.send({"function": "primes", "args": {"below": 20_000_000}, "events": "final"})
        if number % 25 == 0:
            client.send({"function": "fail", "args": {"message": "no such customer"}, "events": "final"})
        time.sleep(0.02 + 0.12 * (number % 60 > 30))


def main() -> int:
    """The exit code: 1 where there is no browser."""
    program = find_chromium()
    if program is None:
        print("chromium is not installed", file=sys.stderr)
        return 1
    server = Server("--concurrency", "20")
    try:
        with Browser(program) as browser, WsClient(server.ws_url) as client:
            page = browser.page()
            page.emulate(1180, 760)
            page.goto(server.http_url)
            page.wait_until("document.querySelector('#connection').dataset.state === 'open'")
            work(client, time.monotonic() + FOR)
            page.click("#bulk-send")
            page.wait_until("document.querySelector('#bulk-progress').value > 0")
            page.evaluate("document.activeElement.blur()")
            path = ROOT / "docs/page.png"
            page.picture(path)
    finally:
        server.kill()
    return _check(path)


def _check(path: Path) -> int:
    size = path.stat().st_size
    print(f"{path}: {size} bytes")
    return int(size > LARGEST)


if __name__ == "__main__":
    sys.exit(main())
