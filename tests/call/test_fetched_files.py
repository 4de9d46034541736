"""Files that a service elsewhere answers with: on disk here while the call goes on, whatever that
service sends.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import http.server
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest

import graphserve
from graphserve import api, depends, service
from graphserve.call import fetched
from graphserve.call.context import CallContext
from graphserve.call.fetched import FetchedFiles, name_of
from graphserve.wire.extensions import MEDIA
from graphserve.wire.media.received import CallFolder
from tests.apps import disk
from tests.apps.fetching import Far
from tests.benchmarks.files import PIECE, Peaks
from tests.harness import APPS, Served, eventually, received, served

ROOT = APPS.parent.parent
TYPED = "application/vnd.graphserve+msgpack"
LARGE = 50_000
HUGE = 160 * 2**20
WORKER_PATH = msgspec.msgpack.Ext(MEDIA, b"\xfc/etc/hostname")  # as services of one graph send it


class Peer(http.server.BaseHTTPRequestHandler):
    """Answers in place of the service: honestly, or not, as the name says."""

    protocol_version = "HTTP/1.1"
    said: dict[str, list[str]] = {}
    hung = threading.Event()

    def answer(self, body: bytes, *, status: int = 200, length: int | None = None, **headers: str) -> None:  # fmt: skip
        self.send_response(status)
        fields = {"content-disposition": 'attachment; filename="page.html"'} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        for name, value in fields.items():
            if value:
                self.send_header(name, value)
        self.send_header("content-length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        Peer.said[name] = [*self.headers.get_all("accept", []), *self.headers.get_all("range", [])]
        match name:
            case "page":
                self.answer(b"0123456789", content_type="text/html")
            case "named":
                disposition = "attachment; filename*=UTF-8''%C3%BC%20x"
                self.answer(b"odd", content_disposition=disposition, content_type="image/png")
            case "empty":
                self.answer(b"", content_disposition="attachment")
            case "large":
                self.answer(bytes(LARGE))
            case "short":
                self.close_connection = True
                self.answer(b"0123", length=10)
            case "long":
                self.close_connection = True
                self.answer(b"0123456789", length=4)
            case "part":
                self.answer(b"234", status=206, content_range="bytes 2-4/10")
            case "moved":
                self.answer(b"", status=302, location="/files/page")
            case "missing":
                self.answer(b"nothing", status=404)
            case "coded":
                self.answer(gzip.compress(bytes(100_000)), content_encoding="gzip")
            case "value":
                body = msgspec.msgpack.encode(5)
                self.answer(body, content_disposition="", content_type=TYPED)
            case "path":
                body = msgspec.msgpack.encode(WORKER_PATH)
                self.answer(body, content_disposition="", content_type=TYPED)
            case "huge":
                self.answer(b"", length=HUGE)
                for _ in range(HUGE // len(PIECE)):
                    self.wfile.write(PIECE)
            case "hangs":
                self.answer(b"0123", length=10)
                self.wfile.flush()
                Peer.hung.wait(60)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        files: object = [b"one", b"two"]
        body = files if self.path == "/several" else [WORKER_PATH]
        self.answer(msgspec.msgpack.encode(body), content_disposition="", content_type=TYPED)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def peer() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Peer)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    Peer.hung.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def run() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="gs-") as folder:  # (a short path)
        yield Path(folder) / "run"


@pytest.fixture(scope="module")
def graph(run: Path, peer: str) -> Iterator[Served]:
    options = "--run-dir", str(run), "--log-level", "error"
    with served("tests.apps.fetching:Gate", *options, cwd=ROOT, env={"FAR_URL": peer}) as graph:
        yield graph


@pytest.fixture
def client(graph: Served) -> Iterator[httpx.Client]:
    with graph.client() as client:
        yield client


@pytest.mark.parametrize("api", ["seen", "untyped"])
def test_a_file_comes_with_its_name_and_is_removed_with_the_call(
    run: Path, client: httpx.Client, api: str
) -> None:
    for name, expected in (
        ("page", ["page.html", "0123456789"]),
        ("named", ["ü x.png", "odd"]),
        ("empty", ["get", ""]),
    ):
        answer = client.post(f"/{api}", json={"name": name}).json()
        assert answer[:2] == expected
        assert answer[2].startswith(f"{run}/")
        assert Peer.said[name] == ["*/*"]
    eventually(lambda: not received(run))


@pytest.mark.parametrize("api", ["by_hop", "each_by_hop"])
def test_the_callers_of_the_caller_have_it_until_they_have_ended(
    run: Path, client: httpx.Client, api: str
) -> None:
    before = set(received(run))
    for answer in client.post(f"/{api}", json={"name": "page"}).json():
        assert answer[:2] in (["page.html", "0123456789"], ["page-2.html", "0123456789"])
    if api == "by_hop":  # (those of a stream stay a minute)
        eventually(lambda: not set(received(run)) - before)


@pytest.mark.parametrize("hop", [False, True])
def test_it_is_passed_on_to_a_client(client: httpx.Client, hop: bool) -> None:
    answer = client.post("/forwarded", json={"name": "page", "hop": hop})
    assert answer.text == "0123456789"
    assert answer.headers["content-disposition"] == 'attachment; filename="page.html"'
    assert answer.headers["content-type"] == "text/html; charset=utf-8"


@pytest.mark.parametrize("api", ["several", "several_by_hop"])
def test_files_inside_of_a_result_come_too(client: httpx.Client, api: str) -> None:
    answer = client.post(f"/{api}", json={}).json()
    assert [each[:2] for each in answer] == [["file", "one"], ["file-2", "two"]]


REFUSED = {
    "short": "peer closed connection without sending complete message body",
    "part": "Far answered 206 Partial Content",
    "moved": "Far answered 302 Found",
    "missing": "Far answered 404 Not Found",
    "coded": "it sent a file as gzip, which nobody asked for",
    "value": "Far.get does not fit its annotation: Expected a file",
    "path": "a path is not accepted from another machine",
}


@pytest.mark.parametrize(("name", "said"), REFUSED.items())
def test_what_is_no_whole_file_is_an_error_and_leaves_nothing(
    graph: Served, run: Path, client: httpx.Client, name: str, said: str
) -> None:
    before = set(received(run))
    lines = len(graph.log)
    answer = client.post("/seen", json={"name": name})
    assert answer.status_code == 502
    graph.wait_log(said, after=lines)
    eventually(lambda: not set(received(run)) - before)


def test_more_than_the_length_that_was_said_is_not_taken(client: httpx.Client) -> None:
    assert client.post("/seen", json={"name": "long"}).json()[1] == "0123"


def test_a_path_is_not_taken_from_another_machine(client: httpx.Client) -> None:
    """A service elsewhere that names a file of ours would have it sent to its own client."""
    for typed in (True, False):
        answer = client.post("/anything", json={"typed": typed})
        assert (answer.status_code, answer.json()["service"]) == (502, "Far")


def test_one_that_stops_in_the_middle_is_late(run: Path, client: httpx.Client) -> None:
    before = set(received(run))
    answer = client.post("/hurried", json={"name": "hangs"})
    assert (answer.status_code, answer.json()["service"]) == (504, "Quick")
    eventually(lambda: not set(received(run)) - before)


def test_a_client_that_leaves_ends_it(run: Path, client: httpx.Client) -> None:
    before = set(received(run))
    with pytest.raises(httpx.ReadTimeout):
        client.post("/seen", json={"name": "hangs"}, timeout=0.5)
    eventually(lambda: not set(received(run)) - before)


def test_a_full_disk_is_said_and_not_filled(graph: Served, run: Path, client: httpx.Client) -> None:
    before = set(received(run))
    answer = client.post("/without_room", json={"name": "large"})
    said = "there is no room on disk for the file that Far answered with"
    assert (answer.status_code, answer.json()["detail"]) == (503, said)
    eventually(lambda: not set(received(run)) - before)


def test_no_other_folder_is_taken_over(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for name in ("n0/1.files", "n1/2.files/call-a", "n1/other/call-b", "elsewhere/call-c"):
        (run / name).mkdir(parents=True)
    files = FetchedFiles(str(run / "n0/1.files"), by_call=True)
    outside = tmp_path / "call-d"
    outside.mkdir()
    told = (outside, run / "n1/other/call-b", run / "n1", run / "n1/2.files/../2.files/call-a", "")
    for path in (*told, run / "n1/3.files/call-gone"):
        sent = base64.b64encode(os.fsencode(path))
        with pytest.raises(OSError), files.reading(CallContext(), sent):
            pass
    with pytest.raises(OSError), files.reading(CallContext(), b"%%"):
        pass
    assert outside.exists() and (run / "n1/2.files/call-a").exists()
    context = CallContext()
    sent = base64.b64encode(os.fsencode(run / "n1/2.files/call-a"))
    with files.reading(context, sent):
        assert (run / "n0/1.files/call-a").exists()
    assert context.files is not None
    context.files.remove()
    assert not (run / "n0/1.files/call-a").exists()


@pytest.mark.anyio
async def test_files_that_somebody_may_still_take_go_in_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = CallFolder(str(tmp_path))
    file = folder.file("a", ".txt")
    file.close()
    assert base64.b64decode(fetched.handed_over(folder)) == os.fsencode(folder.path)
    fetched.remove_later(folder)
    assert await asyncio.to_thread(os.path.exists, file.path)
    monkeypatch.setattr(fetched, "LINGER", 0)
    fetched.remove_later(folder)
    assert await asyncio.to_thread(eventually, lambda: not os.path.exists(folder.path))


@pytest.mark.slow
def test_a_large_file_is_never_in_memory(graph: Served, client: httpx.Client) -> None:
    client.post("/size", json={"name": "page"})
    peaks = Peaks(graph)
    with peaks:
        assert client.post("/size", json={"name": "huge"}).json() == HUGE
    assert peaks.grown() < 40_000


@pytest.mark.anyio
async def test_in_one_process_it_stays_until_that_ends(peer: str) -> None:
    @service
    class Middle:
        far = depends(Far, url=peer)

        @api
        async def get(self, name: str) -> Path:
            return await self.far.get(name)

    @service
    class Gate:
        middle = depends(Middle)

        @api
        async def get(self, name: str) -> Path:
            return await self.middle.get(name)

    async with graphserve.local(Gate) as gate:
        path = await gate.get("page")
        assert (path.name, path.read_text()) == ("page.html", "0123456789")
    assert not path.exists()


def test_a_program_has_it_until_it_stops_the_graph() -> None:
    with graphserve.serve(disk.Disk, port=0, log_level="error") as server:
        path = server.call.read().result()
        assert (path.name, path.read_text()) == ("page.html", "0123456789")
    assert not path.exists()


NAMES = [
    ('attachment; filename="page.html"', "", "page.html"),
    ("attachment; filename=page.html", "", "page.html"),
    ("attachment; filename*=UTF-8''%C3%BC%20x.bin", "", "ü x.bin"),
    ("attachment; filename*=utf-8''..%2F..%2Fetc%2Fpasswd", "", "get"),
    ('attachment; filename="../../x.sh"', "", "get.sh"),
    ('attachment; filename=".bashrc"', "", "get.bashrc"),
    ('attachment; filename="-rf"', "", "get"),
    ('attachment; filename="a\x00b.png"', "", "get.png"),
    ("attachment; filename*=UTF-8''a%0Ab.txt", "", "get.txt"),
    ("attachment; filename*=UTF-8''%FF%FE.txt", "", "get.txt"),
    (f'attachment; filename="{"x" * 300}.png"', "", "get.png"),
    (f"attachment; filename*=UTF-8''{'%E2%82%AC' * 60}.png", "", "get.png"),
    ("attachment", "image/png", "get.png"),
    ('attachment; filename="scan"', "image/png", "scan.png"),
    ("inline", "no/such", "get"),
]


@pytest.mark.parametrize(("disposition", "media_type", "expected"), NAMES)
def test_which_name_it_gets(disposition: str, media_type: str, expected: str) -> None:
    assert name_of(disposition, media_type, "get") == expected
