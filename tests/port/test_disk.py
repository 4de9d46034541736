"""Files on disk: written as they come, sent from there, and removed with the call."""

from __future__ import annotations

import base64
import hashlib
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import graphserve
from graphserve.wire.costs.bounds import FORM_TEXT
from tests.apps.disk import Disk
from tests.benchmarks.files import ways
from tests.harness import APPS, Served, eventually, received, served
from tests.hostile.wire import connected

CONTENT = bytes(range(256)) * 5000
PNG = {"content-type": "image/png"}
FORM = {"content-type": "multipart/form-data; boundary=x"}
# as browsers send a picker without a file
UNCHOSEN = b"""--x\r
Content-Disposition: form-data; name="file"; filename=""\r
Content-Type: application/octet-stream\r
\r
\r
--x--\r
"""


@pytest.fixture(scope="module")
def run() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="gs-") as folder:  # (a short path)
        yield Path(folder) / "run"


@pytest.fixture(scope="module")
def graph(run: Path) -> Iterator[Served]:
    options = "--max-body-size", "3MB", "--run-dir", str(run)
    with served("tests.apps.disk:Disk", *options, cwd=APPS.parent.parent) as graph:
        yield graph


@pytest.fixture
def client(graph: Served) -> Iterator[httpx.Client]:
    with graph.client() as client:
        yield client


def kept(content: bytes, name: str, said: str = "", times: int = 1) -> list[object]:
    digest = hashlib.sha256(content).hexdigest()
    return [name, len(content) * times, digest, said, "0o600"]


@pytest.mark.parametrize("content", [b"", b"a", CONTENT], ids=["empty", "small", "large"])
def test_a_file_comes_in_every_way_and_is_removed(
    run: Path, client: httpx.Client, content: bytes
) -> None:
    named = {"file": ("Scan.TAR.gz", content, "application/gzip")}
    odd = {"file": ("../../../etc/passwd", content)}
    for answer, expected in (
        (client.post("/keep", content=content, headers=PNG), kept(content, "file.png")),
        (client.post("/keep", content=content, headers=PNG, params={"name": "5", "times": 2}), kept(content, "file.png", "5", 2)),
        (client.post("/keep", content=iter([content, b""]), headers=PNG), kept(content, "file.png")),
        (client.post("/keep", files=named, data={"name": "x"}), kept(content, "file.tar.gz", "x")),
        (client.post("/keep", files=odd), kept(content, "file")),
        (client.post("/keep", json={"file": base64.b64encode(content).decode()}), kept(content, "file")),
    ):  # fmt: skip
        assert answer.json()[:5] == expected
        assert str(run) in answer.json()[5]
    files = [("files", ("a.png", content)), ("files", ("b.pdf", b"b"))]
    answer = client.post("/several", files=files, data={"title": "5"})
    assert answer.json() == [[["files.png", len(content)], ["files-2.pdf", 1]], "5", 0]
    put = client.put("/files/5", content=content, headers=PNG, params={"times": 2})
    assert put.json() == ["5", len(content) * 2]
    put = client.put("/files/a", files={"file": content}, data={"times": "2"})
    assert put.json() == ["a", len(content) * 2]
    back = client.post("/back", files=named)
    assert back.content == content
    assert back.headers["content-disposition"] == 'attachment; filename="file.tar.gz"'
    copied = client.post("/copied", files=named)
    assert (copied.content, copied.headers["content-type"]) == (content, "text/x-copy")
    assert client.post("/maybe", json={}).json() is True
    assert client.post("/maybe", content=UNCHOSEN, headers=FORM).json() is True
    assert (
        client.post("/maybe", content=UNCHOSEN[:-9] + b"x\r\n--x--\r\n", headers=FORM).json()
        is False
    )
    assert client.post("/maybe", data={"file": "x"}).json() is False
    eventually(lambda: not received(run))


def test_what_is_refused_leaves_nothing(run: Path, client: httpx.Client) -> None:
    gif = {"content-type": "image/gif"}
    large = bytes(3_000_001)
    answers = {
        "path": client.post("/keep", json={"file": "/etc/passwd"}),
        "null": client.post("/keep", json={"file": None}),
        "missing": client.post("/keep", files={"nobody": b"x"}, data={"name": "x"}),
        "unknown": client.post("/keep", files={"file": b"x", "nobody": CONTENT}),
        "twice": client.post("/keep", files=[("file", b"x"), ("file", b"y")]),
        "type": client.post("/picture", content=b"x", headers={"content-type": "text/plain"}),
        "part": client.post("/picture", files={"file": ("a.txt", b"x", "text/plain")}),
        "size": client.post("/picture", content=iter([bytes(900)] * 2), headers=gif),
        "large part": client.post("/picture", files={"file": ("a.gif", CONTENT, "image/gif")}),
        "body": client.post("/keep", content=iter([large]), headers=gif),
        "broken": client.post("/keep", content=b"--x\r\n", headers=FORM),
        "cut": client.post("/keep", content=b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\nabc', headers=FORM),
        "bare": client.post("/keep", content=b"x", headers={"content-type": "multipart/form-data"}),
        "text": client.post("/keep", files={"file": b"x"}, data={"name": "x" * (FORM_TEXT + 1)}),
        "times": client.post("/keep", files={"file": b"x"}, data={"times": "x"}),
        "unchosen": client.post("/keep", content=UNCHOSEN, headers=FORM),
        "unchosen picture": client.post("/picture", content=UNCHOSEN, headers=FORM),
        "coded": client.post("/maybe", data={"nobody": "x"}),
    }  # fmt: skip
    assert {name: answer.status_code for name, answer in answers.items()} == {
        "path": 422, "null": 422, "missing": 422, "unknown": 422, "twice": 422, "type": 415, "part": 415, "size": 413,
        "large part": 413, "body": 413, "broken": 400, "cut": 400, "bare": 400, "text": 400, "times": 422,
        "unchosen": 422, "unchosen picture": 422, "coded": 422,
    }  # fmt: skip
    assert "a path is not taken" in answers["path"].json()["detail"]
    assert answers["size"].json()["errors"][0]["loc"] == ["file"]
    for path in ("/etc/shadow/x", "/tmp", "/dev/null", "/nowhere"):
        assert client.post("/nowhere", json={"path": path}).status_code == 500
    eventually(lambda: not received(run))


def test_a_file_is_sent_in_parts_and_only_when_it_changed(client: httpx.Client) -> None:
    whole = client.get("/read")
    tag, modified = whole.headers["etag"], "Sun, 09 Sep 2001 01:46:40 GMT"
    assert (whole.text, whole.headers["content-length"]) == ("0123456789", "10")
    assert whole.headers["content-type"] == "text/html; charset=utf-8"
    assert whole.headers["x-content-type-options"] == "nosniff"
    assert whole.headers["accept-ranges"] == "bytes" and whole.headers["x-said"] == "so"
    assert whole.headers["last-modified"] == modified
    head = client.head("/read")
    assert (head.content, head.headers["content-length"]) == (b"", "10")
    for asked, status, content in (
        ({"range": "bytes=2-4"}, 206, "234"),
        ({"range": "bytes=7-"}, 206, "789"),
        ({"range": "bytes=-3"}, 206, "789"),
        ({"range": "bytes=0-99"}, 206, "0123456789"),
        ({"range": "bytes=-99"}, 206, "0123456789"),
        ({"range": "bytes=4-2"}, 200, "0123456789"),
        ({"range": "bytes=0-1,3-4"}, 200, "0123456789"),
        ({"range": "lines=1-2"}, 200, "0123456789"),
        ({"range": "bytes=" + "9" * 5000 + "-"}, 200, "0123456789"),
        ({"range": "bytes=10-"}, 416, ""),
        ({"range": "bytes=2-4", "if-range": tag}, 206, "234"),
        ({"range": "bytes=2-4", "if-range": modified}, 206, "234"),
        ({"range": "bytes=2-4", "if-range": '"other"'}, 200, "0123456789"),
        ({"if-none-match": f'"x", W/{tag}'}, 304, ""),
        ({"if-none-match": "*"}, 304, ""),
        ({"if-none-match": '"other"', "if-modified-since": modified}, 200, "0123456789"),
        ({"if-modified-since": modified}, 304, ""),
        ({"if-modified-since": "Sun, 09 Sep 2001 01:46:39 GMT"}, 200, "0123456789"),
        ({"if-modified-since": "yesterday"}, 200, "0123456789"),
    ):
        answer = client.get("/read", headers=asked)
        assert (answer.status_code, answer.text) == (status, content), asked
        assert answer.headers["etag"] == tag
    part = client.get("/read", headers={"range": "bytes=2-4"})
    assert part.headers["content-range"] == "bytes 2-4/10"
    out = client.get("/read", headers={"range": "bytes=10-"})
    assert out.headers["content-range"] == "bytes */10"
    odd = client.get("/read", params={"odd": "true", "status": 203})
    assert (odd.content, odd.status_code) == (b"odd", 203)
    assert odd.headers["content-disposition"].startswith("attachment; filename*=UTF-8''%C3%BC%20")
    listed = client.get("/read", headers={"accept": "application/json"})
    assert base64.b64decode(listed.json()) == b"0123456789"


@pytest.mark.parametrize("typed", ["+msgpack", "+msgpack;checked=1", ".stream"])
def test_no_client_is_told_a_path(client: httpx.Client, typed: str) -> None:
    """Not even one that asks in the format of services."""
    headers = {"accept": f"application/vnd.graphserve{typed}"}
    for answer in (
        client.get("/read", headers=headers),
        client.post("/listed", json={}, headers=headers),
        client.post("/each", json={}, headers=headers),
    ):
        assert answer.status_code == 200
        assert b"page.html" not in answer.content
        said = answer.content, base64.b64encode(b"0123456789")
        assert b"0123456789" in said[0] or said[1] in said[0]


def test_a_busy_worker_and_a_client_that_leaves(graph: Served, run: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with graph.client() as client:
        form = {"file": ("a.bin", CONTENT)}
        holder = threading.Thread(
            target=lambda: client.post("/hold", files=form, data={"gate": str(gate)})
        )
        holder.start()
        try:
            eventually(Path(f"{gate}.begun").exists)
            for _ in range(8):  # some of these connections are at the worker that is busy
                with graph.client() as other:
                    assert other.get("/read", headers={"range": "bytes=1-2"}).text == "12"
                    assert other.get("/read").headers["x-said"] == "so"
            path = Path(Path(f"{gate}.begun").read_text())
            assert path.exists()
        finally:
            gate.touch()
            holder.join()
        eventually(lambda: not path.exists())
    with connected(graph) as sock:
        sock.sendall(
            b"POST /keep HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: a/b\r\n"
            b"content-length: 500000\r\n\r\n" + bytes(400_000)
        )
        eventually(lambda: received(run))
    eventually(lambda: not received(run))


def test_what_a_worker_held_that_is_killed_is_removed(graph: Served, run: Path) -> None:
    with graph.client() as client, pytest.raises(httpx.TransportError):
        client.post("/die", files={"file": CONTENT})
    eventually(lambda: not received(run))


def test_files_by_http_between_services(client: httpx.Client) -> None:
    answer = client.post("/by_http", files={"file": CONTENT})
    assert answer.json() == [len(CONTENT), "text/plain; charset=utf-8", len(CONTENT)]


@pytest.mark.slow
def test_a_large_file_is_never_in_memory() -> None:
    size = 160 * 2**20
    for way in ways(size):
        held = size // 1000 if way.name == "held" else 0  # (its bytes, and these once)
        assert way.status == 200 and way.grown < 40_000 + held, way
        assert way.name != "up and down" or way.came == size


@pytest.mark.anyio
async def test_files_in_one_process(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(b"abc")
    async with graphserve.local(Disk) as disk:
        assert (await disk.keep(file))[:2] == ["a.txt", 3]
        assert (await disk.copied(file)).read_bytes() == b"abc"
        assert (await disk.by_http(file))[::2] == [3, 3]
        assert await disk.back(file) == file


def test_clients_that_leave_during_a_download_are_no_errors(
    graph: Served, client: httpx.Client, tmp_path: Path
) -> None:
    path = tmp_path / "large.bin"
    path.write_bytes(bytes(1 << 24))
    body = b'{"path": "%b"}' % str(path).encode()
    request = (
        b"POST /nowhere HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n%b" % (len(body), body)
    )
    after = len(graph.log)
    for number in range(60):
        with connected(graph) as sock:
            sock.sendall(request)
            if number % 2:
                assert sock.recv(1)
    for _ in range(20):  # either worker, until it has collected its garbage
        assert client.post("/nowhere", json={"path": str(path)}).status_code == 200
    assert "ERROR" not in "".join(graph.log[after:])
