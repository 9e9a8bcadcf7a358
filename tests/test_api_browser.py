"""The HTTP API as a real browser uses it: a page of its own may, by `fetch` and `EventSource`; a page of another site may not."""

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.browser import Browser, BrowserError, Page
from tests.effects import effects
from tests.harness import Server
from tests.httpapi import HttpClient, fresh

FLAGS = ("--tasks", "tests.sample_tasks", "--workers", "1")

SUBMIT = """fetch(%s, {method: "POST", headers: {"Content-Type": %s, "Prefer": "wait=9"}, body: %s})
    .then(async (response) => [response.status, await response.json()])"""
BLIND = """fetch(%s, {method: "POST", mode: "no-cors", body: '{"function":"mark"}'})"""
FOLLOW = """new Promise((resolve) => {
    const source = new EventSource(%s), events = [];
    source.onmessage = (message) => events.push([message.lastEventId, JSON.parse(message.data).event]);
    source.onerror = () => { if (source.readyState === EventSource.CLOSED) resolve(events); };
})"""


class Elsewhere(BaseHTTPRequestHandler):
    """A page of another site."""

    def do_GET(self) -> None:
        """The same for every path."""
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>elsewhere</title>")

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def tab(browser: Browser) -> Iterator[Page]:
    page = browser.page()
    yield page
    page.close()


@pytest.fixture
def elsewhere() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as site:
        thread = threading.Thread(target=site.serve_forever)
        thread.start()
        yield f"http://localhost:{site.server_address[1]}/"
        site.shutdown()
        thread.join()


def submit(url: str, function: str, kind: str = "application/json", **more: object) -> str:
    return SUBMIT % (json.dumps(f"{url}tasks"), json.dumps(kind), json.dumps(json.dumps({"function": function, **more})))


def test_a_page_of_ours_submits_and_follows_and_is_not_followed_for_ever(server: Server, tab: Page) -> None:
    tab.goto(server.http_url)
    task_id = fresh()
    status, view = tab.evaluate(submit(server.http_url, "countdown", id=task_id, args={"start": 1, "interval": 0}))
    assert (status, view["state"]) == (200, "succeeded")
    events = tab.evaluate(FOLLOW % json.dumps(f"/tasks/{task_id}/events"))  # it connects again by itself, and is told 204
    assert events == [["1", "accepted"], ["2", "started"], ["3", "output"], ["4", "output"], ["5", "succeeded"]]


def test_a_page_of_another_site_neither_submits_nor_reads(server: Server, tab: Page, elsewhere: str) -> None:
    with HttpClient(server) as api:
        task_id = api.submit("echo", wait=9).body["id"]
    before = len(effects(server))
    tab.goto(elsewhere)
    for kind in ("application/json", "text/plain"):
        with pytest.raises(BrowserError, match="Failed to fetch"):
            tab.evaluate(submit(server.http_url, "mark", kind))
    with contextlib.suppress(BrowserError):  # this needs no permission: it is sent, and refused here
        tab.evaluate(BLIND % json.dumps(f"{server.http_url}tasks"))
    with pytest.raises(BrowserError, match="Failed to fetch"):
        tab.evaluate(f"fetch({json.dumps(server.http_url + 'tasks')})")
    assert tab.evaluate(FOLLOW % json.dumps(f"{server.http_url}tasks/{task_id}/events")) == []
    with HttpClient(server) as api:
        assert api.submit("echo", wait=9).status == 200
    assert len(effects(server)) == before
