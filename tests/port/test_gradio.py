"""A page of Gradio that is mounted, as Chromium sees it: its buttons call dependencies, stream what
comes of them, and upload.
"""

from __future__ import annotations

import shutil
from importlib.util import find_spec

import pytest

from tests.harness import APPS, served

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (Debian's package)"),
    pytest.mark.skipif(find_spec("playwright") is None, reason="needs the package playwright"),
    pytest.mark.skipif(find_spec("gradio") is None, reason="needs the package gradio"),
]
ANSWERS = "(text) => document.querySelector('#answer textarea, #answer input')?.value === text"


def test_its_page_calls_dependencies_streams_and_uploads() -> None:
    from playwright.sync_api import sync_playwright

    env = {"GRADIO_ANALYTICS_ENABLED": "False"}
    with (
        served("tests.apps.gradio_page:Gateway", cwd=APPS.parent.parent, env=env) as graph,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        page = browser.new_page()
        page.set_default_timeout(60_000)
        elsewhere: list[str] = []
        page.on("request", lambda r: r.url.startswith(graph.url) or elsewhere.append(r.url))
        page.goto(f"{graph.url}/ui/")
        page.fill("#name textarea, #name input", "Ada")
        page.click("#greet")
        page.wait_for_function(ANSWERS, arg="Hello Ada")
        page.click("#spell")
        page.wait_for_function(ANSWERS, arg="A.d.a.")
        file = {"name": "a.txt", "mimeType": "text/plain", "buffer": b"x" * 300_000}
        page.set_input_files("#file input[type=file]", file)
        page.wait_for_function(ANSWERS, arg="300000 bytes")
        assert not [url for url in elsewhere if not url.startswith(("data:", "blob:"))]
        assert graph.stop() == 0, "its page is open, and waits for no event"
        browser.close()
