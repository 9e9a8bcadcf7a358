"""The page at / in a real browser, against the real server: what a user does there, and what becomes of it when the page is reloaded or the
network fails. handoff.js by itself is tested in test_handoff_js.py."""

import json
from collections.abc import Iterator

import pytest

from tests.browser import Browser, Page, find_chromium
from tests.harness import Server, wait_until
from tests.postoffice import PostOffice
from tests.proxy import Proxy

EVERYONE = {f"user{number}@example.org": 1 for number in range(1, 1001)}
OPEN = "document.querySelector('#connection').dataset.state === 'open' && document.querySelector('#function').options.length > 1"
BULK = "document.querySelector('#bulk').dataset.state"
DONE = "document.querySelector('#bulk-progress').value"
STATE = "document.querySelector('.task')?.dataset.state"
ENDINGS = "[data-event=succeeded], [data-event=failed], [data-event=timed_out], [data-event=cancelled], [data-event=interrupted]"
FINALS = f"document.querySelectorAll('{ENDINGS}').length"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = find_chromium()
    if program is None:
        pytest.skip("chromium is not installed")
    with Browser(program) as running:
        yield running


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
    tab = browser.page()
    tab.emulate()
    tab.goto(server.http_url)
    tab.wait_until(OPEN)
    yield tab
    post.allow(1_000_000)
    assert tab.problems == []
    tab.close()


def hand_off(page: Page, function: str, args: object) -> None:
    page.evaluate(f"document.querySelector('#function').value = {json.dumps(function)}")
    page.evaluate("document.querySelector('#function').dispatchEvent(new Event('change'))")
    page.fill("#arguments", args if isinstance(args, str) else json.dumps(args))
    page.click("#form button")


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
    assert page.evaluate(FINALS) == 1
    assert dict(post.received) == EVERYONE


def test_cancel_stops_the_mails_that_were_not_sent(page: Page, post: PostOffice) -> None:
    page.click("#bulk-send")
    post.allow(100)
    page.wait_until(f"{DONE} > 0")
    wait_until(lambda: post.taken() == 100)
    page.click("#bulk-cancel")
    page.wait_until(f"{BULK} === 'cancelled'")
    assert page.evaluate(STATE) == "cancelled"
    assert page.evaluate(FINALS) == 1
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
    assert page.evaluate(FINALS) == 1
    assert page.evaluate("document.querySelectorAll('.task').length") == 1
    assert dict(post.received) == EVERYONE
    assert page.evaluate("sessionStorage.length") == 0


def test_a_task_that_ends_while_the_page_is_away_is_told_once_it_is_back(page: Page, server: Server) -> None:
    hand_off(page, "sleep", {"seconds": 0.5})
    page.wait_until(f"{STATE} === 'started'")
    page.goto("about:blank")
    page.evaluate("new Promise((wake) => setTimeout(wake, 800))")
    page.goto(server.http_url)
    page.wait_until(f"{STATE} === 'succeeded'")
    assert page.text(".outcome") == "0.5"
    assert page.evaluate(FINALS) == 1


def test_two_tabs_do_not_disturb_each_other(browser: Browser, page: Page, server: Server, post: PostOffice) -> None:
    page.click("#bulk-send")
    post.allow(300)
    other = browser.page()
    other.goto(server.http_url)
    other.wait_until(OPEN)
    assert other.evaluate("document.querySelectorAll('.task').length") == 0
    hand_off(other, "echo", {"tab": 2})
    other.wait_until(f"{STATE} === 'succeeded'")
    other.reload()
    post.allow(1000)
    page.wait_until(f"{BULK} === 'succeeded'")
    assert page.evaluate("document.querySelectorAll('.task').length") == 1
    assert (other.evaluate(BULK), other.problems) == ("idle", [])
    other.close()


def test_a_lost_connection_comes_back_and_the_task_is_reported_once(
    browser: Browser, server: Server, post: PostOffice, proxy: Proxy
) -> None:
    post.empty()
    page = browser.page()
    page.goto(f"http://127.0.0.1:{proxy.port}/")
    page.wait_until(OPEN)
    page.click("#bulk-send")
    post.allow(300)
    page.wait_until(f"{DONE} > 100")
    proxy.cut()
    page.wait_until("document.querySelector('#connection').dataset.state === 'waiting'")
    hand_off(page, "echo", {"said": "while the line was cut"})
    post.allow(1000)
    wait_until(lambda: post.taken() == 1000, 20)
    wait_until(lambda: proxy.refused >= 2)
    assert page.evaluate(BULK) == "running"
    proxy.mend()
    page.click("#try-now")
    page.wait_until(f"{BULK} === 'succeeded' && {STATE} === 'succeeded'")
    assert "while the line was cut" in page.text(".outcome")
    assert page.evaluate(FINALS) == 2
    assert dict(post.received) == EVERYONE
    assert [problem for problem in page.problems if "WebSocket connection to" not in problem] == []
    page.close()


def test_any_task_runs_by_its_name_with_arguments_as_json(page: Page) -> None:
    names = page.evaluate("[...document.querySelector('#function').options].map((option) => option.value)")
    assert set(names) >= {"send_mail", "send_mails", "echo", "sleep", "countdown", "primes", "fail"}
    assert json.loads(page.evaluate("document.querySelector('#arguments').value")).keys() == {"start", "interval"}
    sent = {"text": "مرحبا بالعالم 👋", "list": [1, 2.5, None, True], "deep": {"a": {"b": []}}}
    hand_off(page, "echo", sent)
    page.wait_until(f"{STATE} === 'succeeded'")
    assert json.loads(page.text(".outcome")) == sent
    hand_off(page, "countdown", [3, 0.01])
    page.wait_until(f"document.querySelectorAll('.task').length === 2 && {STATE} === 'succeeded'")
    values = page.evaluate("[...document.querySelectorAll('.task:first-child [data-event=output] .more')].map((line) => line.textContent)")
    assert values == ["3", "2", "1", "0"]


def test_the_keyboard_is_enough(page: Page) -> None:
    page.fill("#arguments", '{"start": 1, "interval": 0}')
    page.press("Enter", modifiers=2)
    page.wait_until(f"{STATE} === 'succeeded'")
    page.evaluate("document.querySelector('#function').focus()")
    for _ in range(2):
        page.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Hand off"
    page.press("Enter")
    page.wait_until(f"document.querySelectorAll('.task').length === 2 && {STATE} === 'succeeded'")
    page.evaluate("document.querySelector('#bulk-send').focus()")
    page.press(" ")
    page.wait_until(f"{BULK} === 'running'")
    page.press("Tab")
    page.press(" ")
    page.wait_until(f"{BULK} === 'cancelled'")
    assert page.evaluate("document.activeElement.id") == "bulk-send"


def test_errors_are_shown_arguments_that_are_no_json_refusals_and_failures(page: Page) -> None:
    for text in ('{"start": ', "3", '{"start": 1e999}', '{"start": 12345678901234567890}'):
        hand_off(page, "countdown", text)
        assert page.text("#arguments-error").startswith("These are no arguments: ")
        assert page.evaluate("document.querySelectorAll('.task').length") == 0
    hand_off(page, "countdown", {"start": "ten"})
    page.wait_until(f"{STATE} === 'failed' || {STATE} === 'refused'")
    assert page.text(".outcome").startswith("bad_arguments: ")
    assert "start" in page.text(".outcome")
    assert page.text("#arguments-error") == ""
    page.evaluate("document.querySelector('#function').selectedOptions[0].value = 'no_such_task'")
    page.click("#form button")
    page.wait_until(f"{STATE} === 'refused'")
    assert page.text(".outcome").startswith("unknown_function: ")
    hand_off(page, "fail", {"message": "as it was told"})
    page.wait_until(f"{STATE} === 'failed'")
    assert "as it was told" in page.text(".outcome")


def test_html_in_results_errors_and_events_is_shown_as_text(page: Page) -> None:
    html = "<img src=x onerror=\"document.title='broken in'\"><b>bold</b><script>document.title='broken in'</script>"
    hand_off(page, "echo", {html: html})
    page.wait_until(f"{STATE} === 'succeeded'")
    assert json.loads(page.text(".outcome")) == {html: html}
    hand_off(page, "fail", {"message": html})
    page.wait_until(f"{STATE} === 'failed'")
    assert html in page.text(".outcome")
    assert page.evaluate("document.querySelectorAll('#tasks img, #tasks b, #tasks script').length") == 0
    assert page.evaluate("document.title") == "Handoff"


def test_progress_and_states_are_there_for_those_who_do_not_see_them(page: Page, post: PostOffice) -> None:
    page.click("#bulk-send")
    post.allow(100)
    page.wait_until(f"{DONE} > 0")
    nodes = page.command("Accessibility.getFullAXTree")["nodes"]
    named = {(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]}
    assert ("progressbar", "Mails sent") in named
    assert {role for role, _ in named} >= {"status", "heading", "combobox", "textbox", "button", "list"}
    assert (
        page.evaluate("document.querySelector('#bulk-note').role || document.querySelector('#bulk-note').getAttribute('role')") == "status"
    )
    post.allow(1000)
    page.wait_until("document.querySelector('#announcer').textContent === 'send_mails succeeded'")


@pytest.mark.parametrize("width", [320, 390, 820, 1920])
def test_nothing_is_wider_than_the_window(page: Page, width: int) -> None:
    page.emulate(width, 800, mobile=width < 500)
    hand_off(page, "echo", {"a" * 300: "b" * 3000, "c": ["d" * 100] * 5})
    page.wait_until(f"{STATE} === 'succeeded'")
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_handoff_js_serves_ones_own_scripts_too(page: Page) -> None:
    script = "import('/handoff.js').then(({ Handoff }) => new Handoff().submit('echo', { own: 'page' }, { events: 'final' }).result)"
    assert page.evaluate(script) == {"own": "page"}
    forgotten = "import('/handoff.js').then(({ Handoff }) => new Handoff().attach('nobody').result.catch((error) => error.code))"
    assert page.evaluate(forgotten) == "unknown_task"
