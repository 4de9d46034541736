"""The OCR example as its README starts it: real processes, real models, its own sample images."""

from __future__ import annotations

import importlib.util
import io
import json
import queue
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import httpx
import pytest
from PIL import ExifTags, Image

from tests.harness import served

if missing := [
    name for name in ("cv2", "onnxruntime", "rapidocr") if importlib.util.find_spec(name) is None
]:
    pytest.skip(f"needs pygraphserve[examples]: {', '.join(missing)}", allow_module_level=True)

ROOT = Path(__file__).parents[2]
OCR = ROOT / "examples" / "ocr"
README = (OCR / "README.md").read_text()
EXPECTED: dict[str, list[str]] = json.loads((OCR / "expected.json").read_text())
START, STOP = 60.0, 30.0  # seconds that the graph may take
ONE_PROCESS = """
import asyncio, json
from pathlib import Path
from app import Gateway
from PIL import Image
from graphserve import local

async def main():
    async with local(Gateway) as gateway:
        return {
            file.name: [line.text for line in await gateway.ocr(Image.open(file))] for file in Path("images").iterdir()
        }

print(json.dumps(asyncio.run(main())))
"""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The address of the example, served by the README's command on a free port."""
    command = documented("graphserve serve")
    process = subprocess.Popen(
        [sys.executable, "-m", *command, "--port", "0"], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    try:
        yield serving(process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(STOP) == 0
    finally:
        # does nothing to a process that has ended; the workers of a killed one end with it
        process.kill()
        process.wait()


def documented(start: str) -> list[str]:
    """The README's command that begins with `start`."""
    found = next(line for line in README.splitlines() if line.startswith(start))
    return shlex.split(found)


def serving(process: subprocess.Popen[str]) -> str:
    """The address that the process prints once it serves."""
    assert process.stderr is not None
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=follow, args=(process.stderr, lines), daemon=True).start()
    seen, deadline = "", time.monotonic() + START
    while (line := lines.get(timeout=max(0.0, deadline - time.monotonic()))) is not None:
        seen += line
        if found := re.search(r"serving on (\S+)", line):
            return found[1]
    pytest.fail(f"the example did not start:\n{seen}")


def follow(stream: IO[str], lines: queue.Queue[str | None]) -> None:
    """Read a stream to its end, so that its writer never waits."""
    for line in stream:
        lines.put(line)
    lines.put(None)


def output_of(*arguments: str, cwd: Path) -> str:
    """What Python prints when it is run with `arguments`."""
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=cwd, check=True, stdout=subprocess.PIPE, text=True, timeout=4 * START
    ).stdout


def read(url: str, image: bytes) -> httpx.Response:
    return httpx.post(
        f"{url}/ocr", content=image, headers={"Content-Type": "image/png"}, timeout=60
    )


def texts(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [line["text"] for line in answer.json()]


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPECTED)
def test_reads_what_the_image_says(url: str, name: str) -> None:
    answer = read(url, (OCR / "images" / name).read_bytes())
    assert texts(answer) == EXPECTED[name]
    for line in answer.json():
        assert set(line) == {"text", "score", "box"}
        assert 0.9 < line["score"] <= 1
        assert [len(corner) for corner in line["box"]] == [2, 2, 2, 2]


@pytest.mark.slow
def test_every_sample_image_is_expected() -> None:
    assert {path.name for path in (OCR / "images").iterdir()} == set(EXPECTED)


@pytest.mark.slow
def test_the_readme_shows_the_answer(url: str) -> None:
    curl = documented("curl")
    image = next(word for word in curl if "=@" in word).partition("@")[2]
    shown = re.search(r"^\[\n.*?^\]$", README, re.DOTALL | re.MULTILINE)
    assert shown is not None
    assert read(url, (ROOT / image).read_bytes()).json() == close_to(json.loads(shown[0]))


def close_to(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lines and documents whose numbers may differ a little: processors round differently."""
    close = {
        "score": lambda score: pytest.approx(score, abs=0.02),
        "box": lambda box: [pytest.approx(corner, abs=2) for corner in box],
    }
    return [
        {name: close.get(name, lambda same: same)(each) for name, each in item.items()}
        for item in items
    ]


@pytest.mark.slow
def test_many_callers_get_each_their_own_answer(url: str) -> None:
    names = list(EXPECTED) * 3
    images = [(OCR / "images" / name).read_bytes() for name in names]
    with ThreadPoolExecutor(len(names)) as pool:
        answers = list(pool.map(lambda image: texts(read(url, image)), images))
    assert answers == [EXPECTED[name] for name in names]


@pytest.mark.slow
@pytest.mark.parametrize(
    "body", [b"", b"no image", b"\x89PNG\r\n\x1a\n"], ids=["empty", "text", "cut short"]
)
def test_what_is_no_image_is_refused(url: str, body: bytes) -> None:
    answer = read(url, body)
    assert answer.status_code == 422
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["errors"][0]["loc"] == ["image"]


@pytest.mark.slow
def test_an_image_of_too_many_pixels_is_refused(url: str) -> None:
    answer = read(url, png(8000, 8000))
    assert answer.status_code == 422
    assert "pixels" in answer.json()["detail"]


@pytest.mark.slow
@pytest.mark.parametrize("line", [line for line in README.splitlines() if "/annotate" in line])
def test_what_is_written_beside_an_image_says_the_same(url: str, line: str, tmp_path: Path) -> None:
    curl = shlex.split(line.replace("http://127.0.0.1:8000", url))
    name = next(word for word in curl if "=@" in word).rpartition("/")[2]
    curl[-1] = str(tmp_path / curl[-1])
    subprocess.run([*curl, "--silent"], cwd=ROOT, check=True, timeout=60)
    with Image.open(curl[-1]) as drawn, Image.open(OCR / "images" / name) as image:
        assert drawn.format == {".png": "PNG", ".jpg": "JPEG"}[Path(curl[-1]).suffix]
        assert drawn.size == (2 * image.width, image.height)
        beside = io.BytesIO()
        drawn.crop((image.width, 0, *drawn.size)).save(beside, "PNG")
    assert texts(read(url, beside.getvalue())) == EXPECTED[name]


@pytest.mark.slow
def test_an_image_is_turned_as_the_camera_was_held(url: str) -> None:
    with Image.open(OCR / "images" / "receipt.png") as image:
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 6  # held upright, its sensor lay on its side
        file = io.BytesIO()
        image.convert("RGB").rotate(90, expand=True).save(file, "JPEG", exif=exif, quality=95)
        lines = read(url, file.getvalue()).json()
        assert [line["text"] for line in lines] == EXPECTED["receipt.png"]
        (x, y), (right, _), *_ = lines[0]["box"]
        assert 0 < x < right < image.width and 0 < y < image.height / 4


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium (Debian's package)")
def test_the_page_shows_what_was_read(url: str) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    flags = ["--no-sandbox", "--disable-dev-shm-usage"]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        page = browser.new_page()
        broken: list[object] = []
        page.on("pageerror", lambda error: broken.append(error))
        page.goto(url)
        page.set_input_files("input", OCR / "images" / "receipt.png")
        state = page.locator("#state")
        playwright.expect(state).to_have_text("12 lines", timeout=60_000)
        assert page.locator("li").all_inner_texts() == EXPECTED["receipt.png"]
        box, image = (page.locator(name).first.bounding_box() for name in ("polygon", "img"))
        assert box["x"] > image["x"] and box["width"] < image["width"]
        page.hover("li:first-child")
        assert page.locator("polygon.at").count() == 1
        page.set_input_files("input", OCR / "app.py")
        playwright.expect(state).to_contain_text("no image that can be read", timeout=60_000)
        assert not page.locator("main").is_visible() and broken == []
        browser.close()


@pytest.mark.slow
def test_documents_are_sorted() -> None:
    parquet_file = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow: the extra tables")
    served_as = documented("graphserve serve examples/ocr/documents.py")[2]
    command = documented("curl -F files=")
    shown = re.findall(r"^\[\n.*?^\]$", README, re.DOTALL | re.MULTILINE)[1]
    unreadable = {
        b"\xff\xfe": "neither an image nor text",
        (OCR / "images" / "receipt.png").read_bytes()[:3000]: "a broken image",
        png(5000, 5000): "an image of more than 20,000,000 pixels",
        png(20000, 20000): "an image of more than 20,000,000 pixels",
    }
    with served(served_as, cwd=ROOT) as graph, graph.client() as client:
        command[-1] = command[-1].replace("http://127.0.0.1:8000", graph.url)
        done = subprocess.run([*command, "--silent"], cwd=ROOT, capture_output=True, timeout=60)
        assert json.loads(done.stdout) == close_to(json.loads(shown))
        files = [("files", (OCR / "texts" / "letter.txt").read_bytes()), ("files", b"Total 3.50")]
        lines = client.post("/sort", files=files, headers={"Accept": "text/csv"}).text.split("\n")
        assert lines[0] == '"source","kind","score","text"'
        assert lines[-2].startswith('"text","receipt",') and lines[-2].endswith(',"Total 3.50"')
        parquet = documented("curl -F files=@examples/ocr/texts/letter.txt")
        parquet[-3:] = [parquet[-3].replace("http://127.0.0.1:8000", graph.url)]
        done = subprocess.run([*parquet, "--silent"], cwd=ROOT, capture_output=True, timeout=60)
        table = parquet_file.read_table(io.BytesIO(done.stdout))
        assert table.column("kind").to_pylist() == ["letter"]
        for file, why in unreadable.items():
            answer = client.post("/sort", files=[("files", b"fine"), ("files", file)])
            assert (answer.status_code, answer.json()["title"]) == (422, "Unreadable Document")
            assert f"document 2 is {why}" in answer.json()["detail"]
        many = client.post("/sort", files=[("files", b"text")] * 21)
        assert many.status_code == 422
        assert "Traceback" not in graph.text


def png(width: int, height: int) -> bytes:
    """An empty image."""
    file = io.BytesIO()
    Image.new("1", (width, height)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.slow
def test_it_reads_the_same_in_one_process() -> None:
    assert json.loads(output_of("-c", ONE_PROCESS, cwd=OCR)) == EXPECTED


def test_the_graph_has_four_nodes_and_three_edges() -> None:
    dot = output_of("-m", *documented("graphserve graph"), "--dot", cwd=ROOT)
    edges = set(re.findall(r'^\s*"(\w+)" -> "(\w+)"', dot, re.MULTILINE))
    nodes = set(re.findall(r'^\s*"(\w+)"(?! ->)', dot, re.MULTILINE))
    assert nodes == {"Gateway", "Detector", "Classifier", "Recognizer"}
    assert edges == {("Gateway", "Detector"), ("Gateway", "Classifier"), ("Gateway", "Recognizer")}
