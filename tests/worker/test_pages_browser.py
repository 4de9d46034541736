"""The pages of the entry in a real browser: both looks draw, call the service and ask no other host
for anything.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import trustme
from chromium import CHROMIUM, Browser

APP = Path(__file__).with_name("pages_app.py")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
needs_swagger = pytest.mark.skipif(
    find_spec("swagger_ui_bundle") is None, reason="needs the extra docs-ui"
)


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
        process = subprocess.Popen(
            [sys.executable, str(APP), *arguments], stdout=subprocess.PIPE, text=True
        )
        processes.append(process)
        assert process.stdout is not None
        return int(process.stdout.readline())

    yield start
    for process in processes:
        process.kill()
        process.communicate()


Forms = Callable[[str], str]
READY = "document.querySelectorAll('.operation').length === 9"


@pytest.fixture(scope="module")
def forms(browser: Browser, serve: Callable[..., int]) -> Forms:
    """Open our own page with one API unfolded; gives a script that finds things inside its card."""
    port = serve("--plain")

    def open_card(api: str) -> str:
        browser.open(f"http://127.0.0.1:{port}/docs#post/{api}", READY)
        browser.run(
            "document.querySelectorAll('.operation').forEach((card) => { card.open = true; })"
        )
        return f"document.getElementById('post/{api}')"

    return open_card


def fill(browser: Browser, card: str, **values: str) -> None:
    """Type values into the fields, found by their labels."""
    for name, value in values.items():
        browser.run(f"""(() => {{
              const named = (one) => one.querySelector(".name")?.textContent === "{name}";
              const input = [...{card}.querySelectorAll("label")].find(named).control;
              input.value = {json.dumps(value)};
              input.dispatchEvent(new Event("input", {{ bubbles: true }}));
            }})()""")


def press(browser: Browser, card: str, button: str = ".send") -> None:
    browser.run(f"{card}.querySelector('{button}').click()")


def answer(browser: Browser, card: str, state: str = "good") -> str:
    """Wait for the complete answer of a call; gives its text."""
    browser.wait(f"{card}.querySelector('.answer[data-state={state}] .body')?.textContent")
    return str(browser.run(f"{card}.querySelector('.body').textContent"))


def choose_file(browser: Browser, card: str, folder: Path) -> None:
    """Choose a file of 10,240 bytes in the field for one that is shown."""
    file = folder / "page.bin"
    file.write_bytes(bytes(range(256)) * 40)
    visible = (
        f"[...{card}.querySelectorAll('input[type=file]')].find((one) => one.checkVisibility())"
    )
    found = browser.send("Runtime.evaluate", expression=visible)["result"]
    browser.send("DOM.setFileInputFiles", files=[str(file)], objectId=found["objectId"])


def test_the_page_draws_and_asks_only_this_server(browser: Browser, forms: Forms) -> None:
    card = forms("add")
    fill(browser, card, a="1")
    press(browser, card)
    answer(browser, card)
    assert {url.split("/")[2].split(":")[0] for url in browser.asked()} == {"127.0.0.1"}
    assert browser.complaints() == []


@pytest.mark.slow
def test_a_long_integer_keeps_its_digits(browser: Browser, forms: Forms) -> None:
    card = forms("add")
    fill(browser, card, a="90071992547409931", b="2")
    press(browser, card)
    assert answer(browser, card).startswith("90071992547409933")
    assert "200 OK" in browser.run(f"{card}.querySelector('.status').textContent")


@pytest.mark.slow
def test_text_arrives_as_it_was_typed(browser: Browser, forms: Forms) -> None:
    card = forms("shout")
    fill(browser, card, text='two lines\n"quoted" <b>')
    press(browser, card)
    assert answer(browser, card).startswith(r'"TWO LINES\n\"QUOTED\" <B>"')


@pytest.mark.slow
def test_a_nested_object_leaves_out_what_is_empty(browser: Browser, forms: Forms) -> None:
    card = forms("read")
    fill(browser, card, title="Hello", x="1.5", y="-2e3", language='"ja"')
    press(browser, card)
    shown = answer(browser, card)
    assert json.loads(shown[: shown.rindex("}") + 1]) == {
        "page": {"title": "Hello", "language": "ja", "box": {"x": 1.5, "y": -2000.0}}
    }


@pytest.mark.slow
def test_a_list_grows_and_shrinks(browser: Browser, forms: Forms) -> None:
    card = forms("total")
    browser.run(
        f"{card}.querySelector('.list > .quiet').click(); {card}.querySelector('.list >"
        " .quiet').click()"
    )
    browser.run(
        f"{card}.querySelectorAll('.item input').forEach((input, at) => {{ input.value = at +"
        " 0.5; })"
    )
    press(browser, card, ".item .quiet")
    press(browser, card)
    assert answer(browser, card).startswith("4")  # 1.5 + 2.5


@pytest.mark.slow
def test_a_wrong_value_is_not_sent(browser: Browser, forms: Forms) -> None:
    card = forms("add")
    fill(browser, card, a="1.5")
    press(browser, card)
    browser.wait(f"{card}.querySelector('.wrong').textContent === 'A whole number is needed here.'")
    assert browser.run("document.activeElement.getAttribute('aria-invalid')") == "true"
    assert not any(url.endswith("/add") for url in browser.asked())


@pytest.mark.slow
def test_a_body_can_be_written_as_json(browser: Browser, forms: Forms) -> None:
    card = forms("add")
    fill(browser, card, a="5")
    press(browser, card, ".sent input")
    assert json.loads(browser.run(f"{card}.querySelector('textarea.code').value")) == {"a": 5}
    browser.run(f"""{card}.querySelector('textarea.code').value = '{{"a": 40, "b": 2}}'""")
    press(browser, card)
    assert answer(browser, card).startswith("42")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["application/octet-stream", "application/json"])
def test_a_file_is_sent_as_it_is_or_inside_json(
    browser: Browser, forms: Forms, tmp_path: Path, kind: str
) -> None:
    card = forms("size")
    select = f"{card}.querySelector('.send-as select')"
    browser.run(f"{select}.value = '{kind}'; {select}.dispatchEvent(new Event('change'))")
    choose_file(browser, card, tmp_path)
    browser.run(f"{card}.querySelector('form .more').open = true")
    # so the file has been read
    browser.wait(f"/--data-/.test({card}.querySelector('form .more pre').textContent)")
    press(browser, card)
    shown = answer(browser, card)
    assert json.loads(shown[: shown.rindex("}") + 1]) == {"bytes": 10_240, "type": kind}


@pytest.mark.slow
def test_what_stands_in_the_query_has_fields_beside_the_file(
    browser: Browser, forms: Forms, tmp_path: Path
) -> None:
    card = forms("store")
    fill(browser, card, name="a & b=1", copies="12")
    choose_file(browser, card, tmp_path)
    press(browser, card)
    browser.wait(f"{card}.querySelectorAll('.wrong')[1].textContent === 'Expected at most 9'")
    fill(browser, card, copies="2")
    press(browser, card)
    shown = answer(browser, card)
    assert json.loads(shown[: shown.rindex("}") + 1]) == {
        "name": "a & b=1",
        "copies": 2,
        "bytes": 10_240,
    }


@pytest.mark.slow
def test_a_file_is_sent_in_a_form(browser: Browser, forms: Forms, tmp_path: Path) -> None:
    card = forms("scan")
    fill(browser, card, title="a & b", times="12")
    choose_file(browser, card, tmp_path)
    browser.run(f"{card}.querySelector('form .more').open = true")
    browser.wait(f"/-F 'image=@/.test({card}.querySelector('form .more pre').textContent)")
    press(browser, card)
    shown = answer(browser, card)
    assert json.loads(shown[: shown.rindex("}") + 1]) == {
        "image": 10_240,
        "title": "a & b",
        "times": "12",
    }


@pytest.mark.slow
def test_nothing_is_cut_off_on_a_phone(browser: Browser, forms: Forms) -> None:
    size = {"width": 360, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.send("Emulation.setDeviceMetricsOverride", **size)
    try:
        for name in ("scan", "read", "count"):
            forms(name)
            assert browser.run("document.documentElement.scrollWidth") <= size["width"]
    finally:
        browser.send("Emulation.clearDeviceMetricsOverride")


@pytest.mark.slow
def test_a_problem_is_shown_at_its_field(browser: Browser, forms: Forms) -> None:
    card = forms("fail")
    fill(browser, card, text="x")
    press(browser, card)
    shown = answer(browser, card, "bad")
    for words in (
        "Unprocessable Content",
        "do not fit the signature",
        "Gateway",
        "r-17",
        "at least 3 characters",
    ):
        assert words in shown
    assert (
        browser.run(f"{card}.querySelector('.wrong').textContent")
        == "Expected at least 3 characters"
    )


@pytest.mark.slow
def test_a_stream_is_shown_while_it_arrives_and_can_be_stopped(
    browser: Browser, forms: Forms
) -> None:
    card = forms("count")
    fill(browser, card, to="3")
    press(browser, card)
    browser.wait(f"/3 items$/.test({card}.querySelector('.status').textContent)")
    assert (
        browser.run(f"{card}.querySelector('.stream').textContent")
        == '{"number": 0}{"number": 1}{"number": 2}'
    )
    fill(browser, card, to="100000")
    press(browser, card)
    browser.wait(f"/[3-9] items so far/.test({card}.querySelector('.status').textContent)")
    press(browser, card, ".actions .quiet")
    browser.wait(f"{card}.querySelector('.status').textContent.includes('stopped by you')")


@pytest.mark.slow
def test_the_command_line_is_given(browser: Browser, forms: Forms) -> None:
    card = forms("shout")
    fill(browser, card, text="it's")
    browser.run(f"{card}.querySelector('form .more').open = true")
    browser.wait(f"{card}.querySelector('form .more pre').textContent")
    command = browser.run(f"{card}.querySelector('form .more pre').textContent")
    command = command.replace("curl ", "curl -s --noproxy '*' ", 1)
    assert (
        subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=30).stdout
        == '"IT\'S"'
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheme", "ground"), [("light", "rgb(246, 247, 249)"), ("dark", "rgb(20, 23, 27)")]
)
def test_the_reader_chooses_light_or_dark(
    browser: Browser, forms: Forms, scheme: str, ground: str
) -> None:
    browser.send(
        "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}]
    )
    forms("add")
    assert browser.run("getComputedStyle(document.body).backgroundColor") == ground


@pytest.mark.slow
def test_it_works_under_a_prefix_and_tls(
    browser: Browser, serve: Callable[..., int], tmp_path: Path
) -> None:
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


@pytest.mark.slow
@needs_swagger
@pytest.mark.parametrize("prefix", ["", "/models"])
def test_swagger_ui_asks_only_this_server(
    browser: Browser, serve: Callable[..., int], prefix: str
) -> None:
    port = serve(*(["--mount", prefix] if prefix else []))
    browser.open(
        f"http://127.0.0.1:{port}{prefix}/docs",
        "document.querySelectorAll('.opblock').length === 9",
    )
    browser.run("document.querySelector('.opblock-summary-control').click()")
    browser.wait("document.querySelector('.execute')")
    # A click that comes before the page listens is lost, so it is made until there is an answer.
    click = (
        "(document.querySelector('.live-responses-table') ??"
        " document.querySelector('.execute').click())"
    )
    answer = "document.querySelector('.live-responses-table')?.innerText"
    browser.wait(f"({click}, /Details\\s+200/.test({answer}))")
    # the page's icon may come after it
    assert f"http://127.0.0.1:{port}{prefix}/add" in browser.asked()
    assert {url.split("/")[2] for url in browser.asked()} == {f"127.0.0.1:{port}"}
    assert browser.complaints() == []
