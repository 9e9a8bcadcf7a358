"""The page at / in a real browser, against the real server: what a user does there, and what becomes of it when the page is reloaded or the
network fails. handoff.js by itself is tested in test_handoff_js.py."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import Browser, Page
from tests.harness import Server, WsClient, wait_until
from tests.postoffice import PostOffice
from tests.proxy import Proxy

EVERYONE = {f"user{number}@example.org": 1 for number in range(1, 1001)}
OPEN = "document.querySelector('#connection').dataset.state === 'open' && document.querySelector('#function').options.length > 1"
BULK = "document.querySelector('#bulk').dataset.state"
DONE = "document.querySelector('#bulk-progress').value"
NEWEST = '#history .row[data-index="0"]:not([hidden])'

LONGEST_PUSH = 1000.0
"""Milliseconds for which the page may be held at most, with 10,000 tasks in its history: generous, for a machine that does much else."""


@pytest.fixture(scope="module")
def post() -> Iterator[PostOffice]:
    with PostOffice() as office:
        yield office


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    with Proxy() as line:
        yield line


@pytest.fixture(scope="module")
def server(post: PostOffice, proxy: Proxy) -> Iterator[Server]:
    running = Server("--origins", f"http://127.0.0.1:{proxy.port}", env={"HANDOFF_SMTP_URL": post.url})
    host, port = running.http_url.removeprefix("http://").rstrip("/").split(":")
    proxy.target = (host, int(port))
    yield running
    post.allow(1_000_000)
    running.clean()


@pytest.fixture
def page(browser: Browser, server: Server, post: PostOffice) -> Iterator[Page]:
    post.empty()
    with browser.shows(server.http_url, OPEN) as tab:
        yield tab
        post.allow(1_000_000)


def hand_off(page: Page, function: str, **fields: object) -> None:
    page.evaluate(f"document.querySelector('#function').value = {json.dumps(function)}")
    page.evaluate("document.querySelector('#function').dispatchEvent(new Event('change'))")
    for name, value in fields.items():
        page.fill(f"#field-{name}", value if isinstance(value, str) else json.dumps(value))
    page.click("#form button")


def newest(page: Page, function: str, state: str) -> None:
    """Wait until the newest task in the history is one of this function, and ended so."""
    row = f"document.querySelector('{NEWEST}')"
    page.wait_until(f"{row}?.dataset.state === '{state}' && {row}.querySelector('.function').textContent === '{function}'")


def open_newest(page: Page) -> None:
    page.click(f"{NEWEST} button")
    page.wait_until("document.querySelector('#detail').open && document.querySelector('#detail-log [data-event=accepted]') !== null")


def test_a_thousand_mails_are_sent_once_each_while_the_bar_moves(page: Page, post: PostOffice) -> None:
    page.click("#bulk-send")
    for allowed in (200, 500, 900):
        post.allow(allowed)
        page.wait_until(f"{DONE} > {allowed - 190} && {DONE} <= {allowed}")
        assert page.evaluate(BULK) == "running"
    assert " % " in page.evaluate("document.title")
    post.allow(1000)
    page.wait_until(f"{BULK} === 'succeeded' && {DONE} === 1000")
    assert page.text("#bulk-done") == "1,000"
    assert page.text("#bulk-note").startswith("All sent in ")
    assert dict(post.received) == EVERYONE


def test_cancel_stops_the_mails_that_were_not_sent(page: Page, post: PostOffice) -> None:
    page.click("#bulk-send")
    post.allow(100)
    page.wait_until(f"{DONE} > 0")
    wait_until(lambda: post.taken() == 100)
    page.click("#bulk-cancel")
    page.wait_until(f"{BULK} === 'cancelled'")
    newest(page, "send_mails", "cancelled")
    assert post.taken() == 100
    assert not page.evaluate("document.querySelector('#bulk-cancel').checkVisibility()")


def test_a_reload_in_mid_task_goes_on_where_it_was_and_ends_with_one_final_report(page: Page, post: PostOffice) -> None:
    page.click("#bulk-send")
    post.allow(400)
    before = page.wait_until(f"{DONE} > 200 && {DONE}")
    page.reload()
    assert page.evaluate(DONE) >= before
    assert page.evaluate(BULK) == "running"
    post.allow(600)
    page.wait_until(f"{DONE} > 450")
    page.reload()
    post.allow(1000)
    page.wait_until(f"{BULK} === 'succeeded' && {DONE} === 1000")
    assert dict(post.received) == EVERYONE
    assert page.evaluate("sessionStorage.length") == 0


def test_a_lost_connection_comes_back_and_the_task_is_reported_once(
    browser: Browser, server: Server, post: PostOffice, proxy: Proxy
) -> None:
    post.empty()
    page = browser.page()
    page.emulate()
    page.goto(f"http://127.0.0.1:{proxy.port}/")
    page.wait_until(OPEN)
    page.click("#bulk-send")
    post.allow(300)
    page.wait_until(f"{DONE} > 100")
    proxy.cut()
    page.wait_until("document.querySelector('#connection').dataset.state === 'waiting'")
    hand_off(page, "echo", xxanything={"said": "while the line was cut"})
    assert "as soon as the connection is back" in page.text("#form-note")
    post.allow(1000)
    wait_until(lambda: post.taken() == 1000, 20)
    wait_until(lambda: proxy.refused >= 2)
    assert page.evaluate(BULK) == "running"
    proxy.mend()
    page.click("#try-now")
    page.wait_until(f"{BULK} === 'succeeded'")
    newest(page, "echo", "succeeded")
    assert dict(post.received) == EVERYONE
    assert [problem for problem in page.problems if "WebSocket connection to" not in problem] == []
    page.close()


def test_the_form_has_a_field_for_each_parameter_and_says_what_is_wrong_with_one(page: Page) -> None:
    names = page.evaluate("[...document.querySelector('#function').options].map((option) => option.value)")
    assert set(names) >= {"send_mail", "send_mails", "echo", "sleep", "countdown", "primes", "fail"}
    assert page.text("#function-doc") == "Say each number from start down to 0, interval seconds apart."
    assert page.evaluate("document.querySelector('#field-interval').placeholder") == "0.1"
    for wrong in ("ten", "12345678901234567890"):
        hand_off(page, "countdown", start=wrong)
        assert page.text("#field-start-error").startswith("start: ")
        assert page.evaluate("document.activeElement.id") == "field-start"
    hand_off(page, "countdown", start="2.5")
    page.wait_until("document.querySelector('#form-note').textContent.includes('bad_arguments')")
    hand_off(page, "countdown", start="3", interval="0.01")
    newest(page, "countdown", "succeeded")
    open_newest(page)
    values = "[...document.querySelectorAll('#detail-log [data-event=output] .more')].map((line) => line.textContent)"
    assert page.wait_until(f"{values}.length === 4 && {values}") == ["3", "2", "1", "0"]
    page.wait_until("document.querySelector('#detail-arguments').textContent.includes('0.01')")


def test_a_task_runs_again_and_one_that_runs_is_cancelled(page: Page) -> None:
    hand_off(page, "sleep", seconds="60")
    row = "#unfinished .row:not([hidden]) button"
    page.wait_until(f"document.querySelector('{row} .state')?.textContent === 'running'")
    page.click(row)
    page.click("#detail-cancel")
    page.wait_until("document.querySelector('#detail-state').textContent === 'cancelled'")
    first = page.text("#detail-id")
    page.wait_until("document.querySelector('#detail-again').checkVisibility({ visibilityProperty: true })")
    page.click("#detail-again")
    page.wait_until("document.querySelector('#detail-state').textContent === 'running'")
    assert page.text("#detail-id") != first
    page.click("#detail-cancel")
    page.wait_until("document.querySelector('#detail-state').textContent === 'cancelled'")


def test_the_keyboard_is_enough(page: Page) -> None:
    hand_off(page, "countdown", start="0")
    newest(page, "countdown", "succeeded")
    first = page.evaluate(f"document.querySelector('{NEWEST}').dataset.id")
    page.fill("#field-start", "1")
    page.press("Enter")
    page.wait_until("document.querySelector('#form-note').textContent === 'countdown is accepted.'")
    page.wait_until(f"document.querySelector('{NEWEST}').dataset.id !== {json.dumps(first)}")
    page.evaluate(f"document.querySelector('{NEWEST} button').focus()")
    page.press("ArrowDown")
    assert page.evaluate("document.activeElement.closest('.row').dataset.index") == "1"
    page.press("Enter")
    page.wait_until("document.querySelector('#detail').open")
    page.press("Escape")
    page.wait_until("!document.querySelector('#detail').open")
    assert page.evaluate("document.activeElement.closest('.row').dataset.index") == "1"
    page.evaluate("document.querySelector('#bulk-send').focus()")
    page.press(" ")
    page.wait_until(f"{BULK} === 'running'")
    page.press("Tab")
    page.press(" ")
    page.wait_until(f"{BULK} === 'cancelled'")
    assert page.evaluate("document.activeElement.id") == "bulk-send"


def test_html_in_results_errors_and_events_is_shown_as_text(page: Page) -> None:
    html = "<img src=x onerror=\"document.title='broken in'\"><b>bold</b><script>document.title='broken in'</script>"
    hand_off(page, "echo", xxanything={html: html})
    newest(page, "echo", "succeeded")
    open_newest(page)
    assert json.loads(page.wait_until("document.querySelector('#detail-result').textContent")) == {html: html}
    page.click("#detail-close")
    hand_off(page, "fail", message=html)
    newest(page, "fail", "failed")
    open_newest(page)
    page.wait_until("document.querySelector('#detail-outcome-title').textContent === 'Error'")
    assert html in page.text("#detail-result")
    assert page.evaluate("document.querySelectorAll('main img, dialog img, dialog b, dialog script').length") == 0
    assert page.evaluate("document.title") == "Handoff"


def test_history_is_filtered_and_workers_and_charts_are_shown(page: Page) -> None:
    hand_off(page, "fail", message="as it was told")
    newest(page, "fail", "failed")
    page.evaluate("document.querySelector('#filter-state').value = 'failed'")
    page.evaluate("document.querySelector('#filter-state').dispatchEvent(new Event('change'))")
    states = "[...document.querySelectorAll('#history .row:not([hidden])')].map((row) => row.dataset.state)"
    page.wait_until(f"{states}.length > 0 && {states}.every((state) => state === 'failed')")
    page.wait_until("document.querySelectorAll('.worker .memory').length === 2")
    page.wait_until("[...document.querySelectorAll('.worker .memory')].some((each) => each.textContent.includes('MiB'))")
    page.wait_until("document.querySelectorAll('.chart path').length === 8 && document.querySelector('.chart path').getAttribute('d')")


@pytest.mark.parametrize("width", [320, 390, 820, 1920])
def test_nothing_is_wider_than_the_window(page: Page, width: int) -> None:
    page.emulate(width, 800, mobile=width < 500)
    hand_off(page, "echo", xxanything={"a" * 300: "b" * 3000, "c": ["d" * 100] * 5})
    newest(page, "echo", "succeeded")
    fits = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    assert page.evaluate(fits)
    open_newest(page)
    assert page.evaluate(f"{fits} && document.querySelector('#detail').scrollWidth <= document.querySelector('#detail').clientWidth")


def test_ten_thousand_tasks_are_drawn_as_few_rows_and_a_push_is_quick(page: Page, server: Server) -> None:
    with WsClient(server.ws_url) as client:
        for start in range(0, 10_000, 1000):
            for number in range(start, start + 1000):
                client.send({"id": f"many{number}", "function": "echo", "args": {"n": number}, "events": "final"})
            done: set[str] = set()
            while len(done) < 1000:
                done.add(client.receive(30)["id"])
    page.reload()
    page.wait_until("document.querySelectorAll('#history .row:not([hidden])').length > 5")
    end = "(() => { const list = document.querySelector('#history'); list.scrollTop = list.scrollHeight; })()"
    shown = "parseInt(document.querySelector('#history-count').textContent.replace(',', ''))"
    page.wait_until(f"({end}, {shown} >= 10000)", 40)
    assert page.evaluate("document.querySelectorAll('#history .row').length") < 80
    page.evaluate("""{
        window.longest = 0;
        new PerformanceObserver((list) => {
            for (const { duration } of list.getEntries()) window.longest = Math.max(window.longest, duration);
        }).observe({ type: "longtask" });
    }""")
    with WsClient(server.ws_url) as client:
        for number in range(1000):
            client.send({"id": f"sleep{number}", "function": "countdown", "args": {"start": 20}})
        page.wait_until("document.querySelector('#unfinished-count').textContent.length >= 3")
        assert page.evaluate("document.querySelectorAll('#unfinished .row').length") < 80
        hand_off(page, "echo", xxanything={})
        page.wait_until("document.querySelector('#form-note').textContent === 'echo is accepted.'")
        for number in range(1000):
            client.send({"id": f"sleep{number}", "cancel": True})
        page.wait_until("document.querySelector('#unfinished-count').textContent === '0'")
    assert page.evaluate("window.longest") < LONGEST_PUSH


def test_the_page_survives_a_kill_of_the_gateway_in_mid_task(browser: Browser, post: PostOffice) -> None:
    post.empty()
    own = Server("--workers", "2", env={"HANDOFF_SMTP_URL": post.url})
    try:
        page = browser.page()
        page.emulate()
        page.goto(own.http_url)
        page.wait_until(OPEN)
        page.click("#bulk-send")
        post.allow(300)
        page.wait_until(f"{DONE} > 100")
        os.kill(own.gateway_pid(), signal.SIGKILL)
        page.wait_until("document.querySelector('#connection').dataset.state === 'waiting'")
        page.wait_until(OPEN)
        post.allow(1000)
        page.wait_until(f"{BULK} === 'succeeded' && {DONE} === 1000")
        newest(page, "send_mails", "succeeded")
        assert dict(post.received) == EVERYONE
        page.close()
    finally:
        own.kill()


def test_the_page_carries_on_by_itself_at_a_reload_in_mid_task(browser: Browser, post: PostOffice) -> None:
    post.empty()
    own = Server("--workers", "2", env={"HANDOFF_SMTP_URL": post.url})
    try:
        page = browser.page()
        page.emulate()
        page.goto(own.http_url)
        page.wait_until(OPEN)
        page.click("#bulk-send")
        for number in (1, 2):
            post.allow(300 * number)
            page.wait_until(f"{DONE} > {300 * number - 200}")
            before = own.gateway_pid()
            own.send_signal(signal.SIGHUP)
            wait_until(lambda number=number: own.log().count("reload-done") == number, 30, own.log)  # type: ignore[misc]
            page.wait_until(OPEN)
            assert own.gateway_pid() != before
        post.allow(1000)
        page.wait_until(f"{BULK} === 'succeeded' && {DONE} === 1000")
        newest(page, "send_mails", "succeeded")
        assert dict(post.received) == EVERYONE
        assert page.problems == []
        page.close()
    finally:
        own.kill()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_nothing_that_keeps_anybody_out(page: Page, dark: bool) -> None:
    axe = Path(__file__).parent / "node/node_modules/axe-core/axe.min.js"
    if not axe.exists():
        pytest.skip("npm's axe-core is not installed: npm ci --prefix tests/node")
    page.emulate(dark=dark)
    hand_off(page, "countdown", start="100")
    page.wait_until("document.querySelector('#unfinished .row:not([hidden])') !== null")
    page.wait_until("document.querySelector('#history .row:not([hidden])') !== null")
    page.evaluate(axe.read_text(encoding="utf-8"))
    found = "axe.run().then(({ violations }) => violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join()}`))"
    assert page.evaluate(found) == []
    open_newest(page)
    assert page.evaluate(found) == []


def test_handoff_js_serves_ones_own_scripts_too(page: Page) -> None:
    script = "import('/handoff.js').then(({ Handoff }) => new Handoff().submit('echo', { own: 'page' }, { events: 'final' }).result)"
    assert page.evaluate(script) == {"own": "page"}
    forgotten = "import('/handoff.js').then(({ Handoff }) => new Handoff().attach('nobody').result.catch((error) => error.code))"
    assert page.evaluate(forgotten) == "unknown_task"
