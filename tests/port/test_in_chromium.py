"""The public port as Chromium sees it, driven by Playwright: EventSource, WebSocket, pages of other
origins, and the page of a picture.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

from tests.harness import APPS, Served, served
from tests.measuring.processes import free_port

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (Debian's package)"),
    pytest.mark.skipif(find_spec("playwright") is None, reason="needs the package playwright"),
]
ROOT = APPS.parent.parent


@pytest.fixture(scope="module")
def graph() -> Iterator[Served]:
    port = free_port()
    arguments = ("--port", str(port), "--cors-origin", f"http://friend.localhost:{port}")
    with served("tests.apps.browsing:Viewed", *arguments, "--workers", "2", cwd=ROOT) as graph:
        yield graph


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with browser.new_page() as page:
        page.set_default_timeout(30_000)
        yield page


def at(graph: Served, host: str) -> str:
    """The address of the port by another name of this machine: another origin."""
    return graph.url.replace("127.0.0.1", host)


EVENTS = """(until) => new Promise((resolve) => {
  const seen = [], source = new EventSource(`/ticks?until=${until}`);
  let opened = 0;
  source.onopen = () => opened++;
  source.onmessage = (event) => seen.push([event.lastEventId, event.data]);
  source.addEventListener("end", () => { source.close(); resolve([opened, seen]); });
})"""


def test_an_event_source_goes_on_behind_the_death_of_a_worker(graph: Served, page: Page) -> None:
    page.goto(graph.url + "/docs")
    opened, seen = page.evaluate(EVENTS, 8)
    assert seen == [[str(number), str(number)] for number in range(1, 9)]
    assert opened == 2
    graph.wait_log("Viewed.*SIGKILL|Viewed.*died|Viewed.*killed")


TALK = """(url) => new Promise((resolve) => {
  const socket = new WebSocket(url), seen = [];
  socket.onopen = () => { socket.send("one"); socket.send("two"); };
  socket.onmessage = (event) => { seen.push(event.data); if (seen.length == 2) socket.close(3000); };
  socket.onclose = (event) => resolve([seen, event.code]);
  setTimeout(() => resolve("it neither opened nor closed"), 30_000);
})"""
ORIGINS = [("127.0.0.1", True), ("friend.localhost", True), ("foe.localhost", False)]


@pytest.mark.parametrize("host, allowed", ORIGINS)
def test_a_websocket_opens_for_pages_of_allowed_origins(
    graph: Served, page: Page, host: str, allowed: bool
) -> None:
    # (/docs has a policy of its own, by which it uses no other origin)
    page.goto(at(graph, host) + "/livez")
    url = graph.url.replace("http", "ws") + "/talk"
    expected: Any = [["ONE", "TWO"], 3000] if allowed else [[], 1006]
    assert page.evaluate(TALK, url) == expected


FETCH = """(url) => fetch(url, {
  method: "POST", headers: {"content-type": "application/json"}, body: '{"name": "you"}',
}).then((answer) => answer.json(), (error) => error.name)"""


@pytest.mark.parametrize("host, allowed", ORIGINS)
def test_a_fetch_is_answered_for_pages_of_allowed_origins(
    graph: Served, page: Page, host: str, allowed: bool
) -> None:
    page.goto(at(graph, host) + "/livez")
    assert page.evaluate(FETCH, graph.url + "/hello") == ("Hello you" if allowed else "TypeError")


def test_the_page_of_the_apis_shows_a_picture(graph: Served, page: Page) -> None:
    page.goto(graph.url + "/docs")
    page.locator(".opblock", has_text="/dot").first.click()
    page.locator("select.content-type").first.select_option("image/png")
    page.get_by_role("button", name="Execute").click()
    shown = page.locator(".response img").first
    shown.wait_for()
    page.wait_for_function("image => image.naturalWidth > 0", arg=shown.element_handle())
    assert shown.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [7, 3]
