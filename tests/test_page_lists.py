"""The lists of the page in a real browser: what stands in them for the keyboard and for a screen reader while they move, and a row's own
task among many whose ids begin alike."""

from collections.abc import Iterator

import pytest

from tests.browser import Browser, Page
from tests.harness import Server, WsClient

FLAGS = ("--concurrency", "200")
SHOWN = "[...document.querySelectorAll('#{0} .row:not([hidden])')]"
FOCUSED = "document.activeElement.closest('.row').dataset.id"


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    with browser.shows(server.http_url, "document.querySelector('#connection').dataset.state === 'open'") as tab:
        yield tab


def run(client: WsClient, *ids: str) -> None:
    for task_id in ids:
        client.send({"id": task_id, "function": "echo", "args": {"of": task_id}, "events": "final"})
        client.final(task_id)


def first_row(page: Page, task_id: str) -> None:
    page.wait_until(f"document.querySelector('#history .row[data-index=\"0\"]:not([hidden])')?.dataset.id === '{task_id}'")


def test_tab_goes_past_a_long_list_and_comes_back_to_the_row_it_left(page: Page, client: WsClient) -> None:
    for number in range(60):
        client.send({"id": f"nap-{number:02}", "function": "sleep", "args": [600], "on_disconnect": "cancel"})
    page.wait_until("document.querySelector('#unfinished-count').textContent === '60'")
    page.evaluate("document.querySelector('.skip').focus()")
    page.press("Tab")
    assert page.evaluate(FOCUSED) == "nap-00"
    for _ in range(3):
        page.press("ArrowDown")
    page.press("Tab")
    assert page.evaluate("document.activeElement.id") == "filter-state"
    page.press("Tab", modifiers=8)
    assert page.evaluate(FOCUSED) == "nap-03"
    assert page.evaluate(f"{SHOWN.format('unfinished')}.filter((row) => row.querySelector('button').tabIndex === 0).length") == 1


def test_rows_stand_in_their_order_wherever_one_has_scrolled(page: Page, client: WsClient) -> None:
    run(client, *(f"row-{number:02}" for number in range(60)))
    first_row(page, "row-59")
    for top in (1500, 700, 2000, 0, 400):
        page.evaluate(f"document.querySelector('#history').scrollTo({{ top: {top}, behavior: 'instant' }})")
        page.wait_until(f"{SHOWN.format('history')}.some((row) => Math.abs(row.offsetHeight * row.dataset.index - {top}) < 100)")
        order = page.evaluate(f"{SHOWN.format('history')}.map((row) => Number(row.dataset.index))")
        assert order == list(range(order[0], order[0] + len(order)))


def test_the_focus_stays_with_its_task_while_others_end(page: Page, client: WsClient) -> None:
    run(client, "mine")
    first_row(page, "mine")
    page.evaluate("document.querySelector('#history .row[data-id=mine] button').focus()")
    run(client, *(f"other-{number}" for number in range(30)))
    page.wait_until("document.activeElement.closest('.row')?.dataset.index === '30'")
    assert page.evaluate(FOCUSED) == "mine"
    page.press("Enter")
    page.wait_until("document.querySelector('#detail-id').textContent === 'mine'")


def test_a_task_is_found_among_those_whose_ids_begin_with_its_own(page: Page, client: WsClient) -> None:
    run(client, "order-1", *(f"order-1{number}" for number in range(12)))
    first_row(page, "order-111")
    page.evaluate("document.querySelector('#history').scrollTo({ top: 500, behavior: 'instant' })")
    page.wait_until("!!document.querySelector('#history .row[data-id=order-1]:not([hidden])')")
    page.click("#history .row[data-id=order-1] button")
    page.wait_until("document.querySelector('#detail-arguments').textContent.includes('\"order-1\"')")
    page.wait_until("document.querySelector('#detail-again').checkVisibility({ visibilityProperty: true })")
