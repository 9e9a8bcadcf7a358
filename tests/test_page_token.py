"""The page where a token is asked for, in a real browser: it is asked for once a tab, and goes nowhere but to the gateway."""

import secrets
from collections.abc import Iterator

import pytest

from tests.browser import Browser, Page
from tests.harness import Server, wait_until
from tests.httpapi import HttpClient
from tests.tokenfile import TokenFile

ANNA, ROOT = "anna-" + "a" * 40, "root-" + "r" * 40
ASKED = "!document.querySelector('#entry').hidden"
IN = "document.querySelector('#connection').dataset.state === 'open' && document.querySelector('#function').options.length > 1"


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> TokenFile:
    file = TokenFile(tmp_path_factory.mktemp("tokens") / "tokens.toml")
    file.add(ANNA, "anna", functions='["countdown", "echo"]')
    file.add(ROOT, "root", operator="true")
    return file


@pytest.fixture(scope="module")
def server(tokens: TokenFile) -> Iterator[Server]:
    running = Server("--workers", "1", "--tokens", str(tokens.path), "--rate-failures", "0")
    yield running
    running.clean()


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    with browser.shows(server.http_url, ASKED) as tab:
        yield tab


def enter(page: Page, token: str) -> None:
    page.fill("#token", token)
    page.click("#entry-form button")


def test_it_asks_and_shows_ones_own_alone(page: Page, server: Server) -> None:
    enter(page, "nobody")
    page.wait_until(f"{ASKED} && document.querySelector('#entry-note').textContent.includes('token')")
    enter(page, ANNA)
    page.wait_until(IN)
    assert page.evaluate("document.querySelector('#entry').hidden")
    assert page.evaluate("[...document.querySelector('#function').options].map(({ value }) => value).sort().join()") == "countdown,echo"
    assert page.evaluate("getComputedStyle(document.querySelector('#charts')).display") == "none"
    page.fill("#field-start", "0")
    page.click("#form button")
    page.wait_until("document.querySelector('#history .row[data-state=succeeded]') !== null")
    page.reload()
    page.wait_until(IN)
    assert page.evaluate("location.href") == server.http_url
    assert ANNA not in page.evaluate("document.documentElement.outerHTML + document.cookie + JSON.stringify({ ...localStorage })")
    assert ANNA not in server.log()


def test_an_operator_sees_the_whole(page: Page) -> None:
    enter(page, ROOT)
    page.wait_until(IN)
    page.wait_until("document.querySelector('#workers .worker') !== null")
    assert page.evaluate("getComputedStyle(document.querySelector('#charts')).display") != "none"


def test_another_tab_is_asked_again_and_a_token_that_is_taken_back_is_noticed(page: Page, server: Server, tokens: TokenFile) -> None:
    short = secrets.token_urlsafe(32)
    tokens.add(short, "short")
    with HttpClient(server) as http:
        wait_until(lambda: http.ask("GET", "/tasks", Authorization=f"Bearer {short}").status == 200)
    enter(page, short)
    page.wait_until(IN)
    tokens.remove(short)
    page.wait_until(ASKED)
    assert "not good any more" in page.text("#entry-note")
