"""The pages of the entry in a real browser: both looks draw, call the service and ask no other host for anything."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import trustme

CHROMIUM = shutil.which("chromium")
DEADLINE_S = 30.0
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking", "--disable-quic",
    "--disable-component-update", "--disable-sync", "--no-first-run", "--window-size=1100,1000", "--ignore-certificate-errors",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--remote-debugging-pipe",
)  # fmt: skip
APP = Path(__file__).with_name("pages_app.py")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
needs_swagger = pytest.mark.skipif(find_spec("swagger_ui_bundle") is None, reason="needs the extra docs-ui")


class Browser:
    """Chromium, steered by its DevTools protocol through a pipe: JSON messages that end with a zero byte."""

    def __init__(self, profile: Path) -> None:
        commands, self._write = _high_pipe()
        self._read, answers = _high_pipe()

        def lay_pipes() -> None:  # Chromium reads commands from descriptor 3 and writes to 4
            os.dup2(commands, 3)
            os.dup2(answers, 4)

        self._process = subprocess.Popen(
            [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            preexec_fn=lay_pipes, pass_fds=(3, 4), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(commands)
        os.close(answers)
        self._number = 0
        self._session: str | None = None
        self._results: dict[int, dict[str, Any]] = {}
        self._arrived = threading.Condition()
        self.events: list[dict[str, Any]] = []
        threading.Thread(target=self._listen, daemon=True).start()
        page = next(t for t in self.send("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self._session = self.send("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def _listen(self) -> None:
        with os.fdopen(self._read, "rb") as stream:
            rest = b""
            while part := stream.read1():
                *messages, rest = (rest + part).split(b"\0")
                with self._arrived:
                    for message in map(json.loads, messages):
                        if "id" in message:
                            self._results[message["id"]] = message
                        else:
                            self.events.append(message)
                    self._arrived.notify_all()

    def send(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        with self._arrived:
            assert self._arrived.wait_for(lambda: number in self._results, DEADLINE_S), f"no answer to {method}"
            result = self._results.pop(number)
        assert "error" not in result, result
        return result["result"]

    def run(self, script: str) -> Any:
        result = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait(self, script: str) -> None:
        """Run the script again and again until its value is truthy."""
        end = time.monotonic() + DEADLINE_S
        while not self.run(f"Boolean({script})"):
            assert time.monotonic() < end, f"never true: {script}\n{self.run('document.body.innerText')}"
            time.sleep(0.02)  # between two looks at the condition

    def open(self, url: str, ready: str) -> None:
        self.send("Page.navigate", url="about:blank")  # or a URL that differs in its fragment only keeps the old page
        self.events.clear()
        self.send("Page.navigate", url=url)
        self.wait(ready)

    def asked(self) -> list[str]:
        """Return the URLs of all requests since the page was opened, those inside the page's memory left out."""
        sent = [event["params"]["request"]["url"] for event in self.events if event["method"] == "Network.requestWillBeSent"]
        return [url for url in sent if not url.startswith(("data:", "blob:"))]

    def complaints(self) -> list[str]:
        """Return what the browser's console says is wrong: policy violations, exceptions, files not found."""
        logged = [event["params"]["entry"] for event in self.events if event["method"] == "Log.entryAdded"]
        thrown = [str(event["params"]) for event in self.events if event["method"] == "Runtime.exceptionThrown"]
        return [f"{entry['text']} {entry.get('url', '')}" for entry in logged if entry["level"] in ("error", "warning")] + thrown

    def close(self) -> None:
        os.close(self._write)  # the end of the pipe ends the browser
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _high_pipe() -> tuple[int, int]:
    """Make a pipe whose descriptors are not 3 or 4, where it would be overwritten while it is laid."""
    low = os.pipe()
    high = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in low)
    for end in low:
        os.close(end)
    return high[0], high[1]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def serve() -> Iterator[Callable[..., int]]:
    """Start the application of `pages_app.py`; gives its port."""
    processes = []

    def start(*arguments: str) -> int:
        process = subprocess.Popen([sys.executable, str(APP), *arguments], stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout is not None
        return int(process.stdout.readline())

    yield start
    for process in processes:
        process.terminate()
        process.wait(10)
        process.stdout.close()  # type: ignore[union-attr]


READY = "document.querySelectorAll('.operation').length === 7"


@pytest.fixture(scope="module")
def forms(browser: Browser, serve: Callable[..., int]) -> Callable[[str], str]:
    """Open our own page with one API unfolded; gives a script that finds things inside its card."""
    port = serve("--plain")

    def open_card(api: str) -> str:
        browser.open(f"http://127.0.0.1:{port}/docs#post/{api}", READY)
        browser.run("document.querySelectorAll('.operation').forEach((card) => { card.open = true; })")
        return f"document.getElementById('post/{api}')"

    return open_card


def fill(browser: Browser, card: str, **values: str) -> None:
    """Type values into the fields, found by their labels."""
    for name, value in values.items():
        browser.run(
            f"""(() => {{
              const label = [...{card}.querySelectorAll("label")].find((one) => one.querySelector(".name")?.textContent === "{name}");
              const input = label.control;
              input.value = {json.dumps(value)};
              input.dispatchEvent(new Event("input", {{ bubbles: true }}));
            }})()"""
        )


def press(browser: Browser, card: str, button: str = ".send") -> None:
    browser.run(f"{card}.querySelector('{button}').click()")


def answer(browser: Browser, card: str, state: str = "good") -> str:
    """Wait for the complete answer of a call; gives its text."""
    browser.wait(f"{card}.querySelector('.answer').dataset.state === '{state}' && {card}.querySelector('.body').textContent")
    return str(browser.run(f"{card}.querySelector('.body').textContent"))


def test_the_page_draws_and_asks_only_this_server(browser: Browser, forms: Callable[[str], str]) -> None:
    card = forms("add")
    fill(browser, card, a="1")
    press(browser, card)
    answer(browser, card)
    assert {url.split("/")[2].split(":")[0] for url in browser.asked()} == {"127.0.0.1"}
    assert browser.complaints() == []


def test_a_long_integer_keeps_its_digits(browser: Browser, forms: Callable[[str], str]) -> None:
    card = forms("add")
    fill(browser, card, a="90071992547409931", b="2")
    press(browser, card)
    assert answer(browser, card).startswith("90071992547409933")
    assert "200 OK" in browser.run(f"{card}.querySelector('.status').textContent")


def test_text_arrives_as_it_was_typed(browser: Browser, forms: Callable[[str], str]) -> None:
    card = forms("shout")
    fill(browser, card, text='two lines\n"quoted" <b>')
    press(browser, card)
    assert answer(browser, card).startswith(r'"TWO LINES\n\"QUOTED\" <B>"')


def test_a_nested_object_leaves_out_what_is_empty(browser: Browser, forms: Callable[[str], str]) -> None:
    card = forms("read")
    fill(browser, card, title="Hello", x="1.5", y="-2e3", language='"ja"')
    press(browser, card)
    shown = answer(browser, card)
    assert json.loads(shown[: shown.rindex("}") + 1]) == {
        "page": {"title": "Hello", "language": "ja", "box": {"x": 1.5, "y": -2000.0}}
    }


def test_a_list_grows_and_shrinks(browser: Browser, forms: Callable[[str], str]) -> None:
    card = forms("total")
    browser.run(f"{card}.querySelector('.list > .quiet').click(); {card}.querySelector('.list > .quiet').click()")
    browser.run(f"{card}.querySelectorAll('.item input').forEach((input, at) => {{ input.value = at + 0.5; }})")
    press(browser, card, ".item .quiet")
    press(browser, card)
    assert answer(browser, card).startswith("4")  # 1.5 + 2.5


def test_a_wrong_value_is_not_sent(browser: Browser, forms: Callable[[str], str]) -> None:
    card = forms("add")
    fill(browser, card, a="1.5")
    press(browser, card)
    browser.wait(f"{card}.querySelector('.wrong').textContent === 'A whole number is needed here.'")
    assert browser.run("document.activeElement.getAttribute('aria-invalid')") == "true"
    assert not any(url.endswith("/add") for url in browser.asked())


def test_a_body_can_be_written_as_json(browser: Browser, forms: Callable[[str], str]) -> None:
    card = forms("add")
    fill(browser, card, a="5")
    press(browser, card, ".sent input")
    assert json.loads(browser.run(f"{card}.querySelector('textarea.code').value")) == {"a": 5}
    browser.run(f"""{card}.querySelector('textarea.code').value = '{{"a": 40, "b": 2}}'""")
    press(browser, card)
    assert answer(browser, card).startswith("42")


def test_a_file_is_sent_as_it_is(browser: Browser, forms: Callable[[str], str], tmp_path: Path) -> None:
    card = forms("size")
    file = tmp_path / "page.bin"
    file.write_bytes(bytes(range(256)) * 40)
    found = browser.send("Runtime.evaluate", expression=f"{card}.querySelector('input[type=file]')")["result"]
    browser.send("DOM.setFileInputFiles", files=[str(file)], objectId=found["objectId"])
    press(browser, card)
    shown = answer(browser, card)
    assert json.loads(shown[: shown.rindex("}") + 1]) == {"bytes": 10_240, "type": "application/octet-stream"}


def test_a_problem_is_shown_at_its_field(browser: Browser, forms: Callable[[str], str]) -> None:
    card = forms("fail")
    fill(browser, card, text="x")
    press(browser, card)
    shown = answer(browser, card, "bad")
    for words in ("Unprocessable Content", "do not fit the signature", "Gateway", "r-17", "Expected at least 3 characters"):
        assert words in shown
    assert browser.run(f"{card}.querySelector('.wrong').textContent") == "Expected at least 3 characters"


def test_a_stream_is_shown_while_it_arrives_and_can_be_stopped(browser: Browser, forms: Callable[[str], str]) -> None:
    card = forms("count")
    fill(browser, card, to="3")
    press(browser, card)
    browser.wait(f"/3 items$/.test({card}.querySelector('.status').textContent)")
    assert browser.run(f"{card}.querySelector('.stream').textContent") == '{"number": 0}{"number": 1}{"number": 2}'
    fill(browser, card, to="100000")
    press(browser, card)
    browser.wait(f"{card}.querySelectorAll('.stream li').length > 2 && {card}.querySelector('.status').textContent.includes('so far')")
    press(browser, card, ".actions .quiet")
    browser.wait(f"{card}.querySelector('.status').textContent.includes('stopped by you')")


def test_the_command_line_is_given(browser: Browser, forms: Callable[[str], str]) -> None:
    card = forms("shout")
    fill(browser, card, text="it's")
    browser.run(f"{card}.querySelector('form .more').open = true")
    browser.wait(f"{card}.querySelector('form .more pre').textContent")
    command = browser.run(f"{card}.querySelector('form .more pre').textContent")
    done = subprocess.run(["sh", "-c", command.replace("curl ", "curl -s --noproxy '*' ", 1)], capture_output=True, text=True, timeout=30)
    assert done.stdout == '"IT\'S"'


@pytest.mark.parametrize(("scheme", "ground"), [("light", "rgb(246, 247, 249)"), ("dark", "rgb(20, 23, 27)")])
def test_the_reader_chooses_light_or_dark(browser: Browser, forms: Callable[[str], str], scheme: str, ground: str) -> None:
    browser.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    forms("add")
    assert browser.run("getComputedStyle(document.body).backgroundColor") == ground


def test_it_works_under_a_prefix_and_tls(browser: Browser, serve: Callable[..., int], tmp_path: Path) -> None:
    issued = trustme.CA().issue_cert("127.0.0.1")
    pem = tmp_path / "server.pem"
    pem.write_bytes(issued.private_key_and_cert_chain_pem.bytes())
    port = serve("--plain", "--mount", "/models", "--cert", str(pem))
    browser.open(f"https://127.0.0.1:{port}/models/", READY)
    card = "document.getElementById('post/add')"
    fill(browser, card, a="1")
    press(browser, card)
    assert answer(browser, card).startswith("2")
    assert browser.asked()[-1] == f"https://127.0.0.1:{port}/models/add"


@needs_swagger
@pytest.mark.parametrize("prefix", ["", "/models"])
def test_swagger_ui_draws_calls_and_asks_only_this_server(browser: Browser, serve: Callable[..., int], prefix: str) -> None:
    port = serve(*(["--mount", prefix] if prefix else []))
    browser.open(f"http://127.0.0.1:{port}{prefix}/docs", "document.querySelectorAll('.opblock').length === 7")
    browser.run("document.querySelector('.opblock-summary-control').click()")
    browser.wait("document.querySelector('.execute')")
    browser.run("document.querySelector('.execute').click()")
    browser.wait("[...document.querySelectorAll('.live-responses-table .response-col_status')].some((one) => one.textContent.startsWith('200'))")
    assert browser.asked()[-1] == f"http://127.0.0.1:{port}{prefix}/add"
    assert {url.split("/")[2] for url in browser.asked()} == {f"127.0.0.1:{port}"}
    assert browser.complaints() == []
