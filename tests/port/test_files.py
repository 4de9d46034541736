"""Files come as the body itself or in a form, and leave as they are: at the port, past a busy
worker, over a hop, in `local()`.
"""

from __future__ import annotations

import base64
import select
import socket
import struct
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import httpx
import pytest

import graphserve
from graphserve.wire.codec import Format
from graphserve.wire.costs.bounds import FORM_TEXT, LARGE_BODY, LARGE_FORM
from graphserve.wire.media.bodies import BodyReader
from graphserve.wire.problem import HttpProblem
from graphserve.wire.signature import Signature
from graphserve.worker.dispatch import decoding
from graphserve.worker.dispatch.executor import BoundApi
from tests.apps.files import Files, Rate, Sound
from tests.harness import APPS, Served, eventually, served
from tests.hostile.wire import connected

SMALL = bytes(range(256))
LARGE = SMALL * (LARGE_BODY // 100)
RAW = {"content-type": "image/png"}
OCTETS = {"accept": "application/octet-stream"}
URLENCODED = {"content-type": "application/x-www-form-urlencoded"}
MULTIPART = {"content-type": "multipart/form-data; boundary=B"}
FILE_PART = b"""--B\r
Content-Disposition: form-data; name="body"; filename="a.bin"\r
\r
"""
# as browsers send a picker without a file
UNCHOSEN = b"""--B\r
Content-Disposition: form-data; name="%b"; filename=""\r
Content-Type: application/octet-stream\r
\r
\r
--B--\r
"""


@pytest.fixture(scope="module")
def graph() -> Iterator[Served]:
    with served("tests.apps.files:Files", cwd=APPS.parent.parent) as graph:
        yield graph


@pytest.fixture
def client(graph: Served) -> Iterator[httpx.Client]:
    with graph.client() as client:
        yield client


@pytest.mark.parametrize("content", [b"", SMALL, LARGE], ids=["empty", "small", "large"])
def test_a_file_comes_and_leaves_in_every_way(client: httpx.Client, content: bytes) -> None:
    for _ in range(2):  # the same head comes again on the same connection
        answer = client.post("/twice", content=content, headers=RAW | OCTETS)
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.content == content * 2
        answer = client.post("/twice", files={"data": content}, headers=OCTETS)
        assert answer.content == content * 2
        answer = client.post(
            "/describe", content=content, headers=RAW, params={"times": 2, "tags": ["5", "b"]}
        )
        assert answer.json() == [len(content), 2, "", ["5", "b"], False]
        answer = client.post(
            "/describe",
            data={"times": "2", "wide": "true", "tags": ["5", "b"]},
            files={"image": content},
        )
        assert answer.json() == [len(content), 2, "", ["5", "b"], True]
        names = {"names": ["a", "b"]}
        answer = client.post("/sizes", data=names, files=[("pages", content), ("pages", b"1")])
        assert answer.json() == {"a": len(content), "b": 1}
        answer = client.post("/halves", files={"data": content})
        assert sum(map(int, answer.text.split())) == len(content)
    assert client.post("/twice", content=SMALL, headers=RAW).text[0] == '"'  # base64, unasked
    assert client.post("/optional", content=SMALL, headers=RAW).json() is False
    assert client.post("/optional", json={}).json() is True


def test_a_large_form_comes(graph: Served, client: httpx.Client) -> None:
    """Its files are taken out of it as it comes."""
    large = SMALL * (LARGE_FORM // 256)
    answer = client.post("/twice", files={"data": large}, headers=OCTETS)
    assert answer.content == large * 2
    names = {"names": ["a", "b"]}
    answer = client.post("/sizes", data=names, files=[("pages", large), ("pages", b"1")])
    assert answer.json() == {"a": len(large), "b": 1}
    answer = client.post("/describe", data={"times": "x"}, files={"image": large})
    assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (422, ["times"])
    answer = client.post("/wav", files={"audio": ("a", large, "audio/a")})
    assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (413, ["audio"])
    with connected(graph) as sock:  # who leaves in the middle leaves nothing
        sock.sendall(
            b"POST /twice HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: multipart/form-data;"
            b" boundary=B\r\ncontent-length: %d\r\n\r\n" % (2 * LARGE_FORM) + FILE_PART
        )
    assert client.post("/plain", data={"x": "1"}).json() == 1


def test_what_is_refused(client: httpx.Client) -> None:
    form = {"image": SMALL}
    answers = {
        "unknown": client.post("/describe", files=form, data={"nobody": "1"}),
        "query": client.post("/describe", files=form, params={"times": 2}),
        "in url": client.post("/describe", json={"image": ""}, params={"times": 2}),
        "plain": client.post("/plain", files=form),
        "unchosen": client.post("/describe", content=UNCHOSEN % b"image", headers=MULTIPART),
        "json": client.post("/plain", content='{"x": 1}', headers=URLENCODED),
        "raw": client.post("/plain", content=SMALL, headers=RAW),
        "two": client.post("/sizes", content=SMALL, headers=RAW),
        "coded": client.post("/describe", data={"image": "x"}),
        "broken": client.post("/describe", content=SMALL, headers={"content-type": "multipart/form-data; boundary=x"}),
    }  # fmt: skip
    assert {name: answer.status_code for name, answer in answers.items()} == {
        "unknown": 422, "query": 422, "in url": 422, "plain": 422, "unchosen": 422, "json": 415, "raw": 415, "two": 415, "coded": 415, "broken": 400,
    }  # fmt: skip
    assert answers["unknown"].json()["errors"][0]["loc"] == ["nobody"]
    assert answers["query"].json()["errors"][0]["loc"] == ["query", "times"]
    assert "-F NAME=@FILE" in answers["coded"].json()["detail"]
    assert "no file was chosen" in answers["unchosen"].json()["errors"][0]["msg"]
    assert "--json" in answers["json"].json()["detail"]


def test_forms_without_files(client: httpx.Client) -> None:
    """Of both kinds, at a worker that is free, and where the path says an argument."""
    data = {"count": "5", "on": "on", "words": ["a", "ü&"], "none": ""}
    for more in ({}, {"files": [("words", (None, "c"))]}):
        words = ["a", "ü&", *(["c"] if more else [])]
        answer = client.post("/values", data=data, **more)
        assert answer.json() == [5, True, words, "", None, None]
        answer = client.post(
            "/shelves/7/values", data={"title": "5"}, **more and {"files": {"n": (None, "2")}}
        )
        assert answer.json() == [7, "5", 2 if more else 1]
    assert client.post("/optional", data={}, headers=URLENCODED).json() is True
    for name, status in (("data", 200), ("image", 422)):  # (no file was chosen)
        answer = client.post("/optional", content=UNCHOSEN % name.encode(), headers=MULTIPART)
        assert answer.status_code == status
        assert status == 422 or answer.json() is True
    taken = client.get("/openapi.json").json()["paths"]["/values"]["post"]["requestBody"]
    assert list(taken["content"]) == ["application/json", "application/msgpack"]  # (it has a dict)
    taken = client.get("/openapi.json").json()["paths"]["/plain"]["post"]["requestBody"]
    assert list(taken["content"])[2:] == ["application/x-www-form-urlencoded"]


def test_a_form_of_the_wrong_site_is_refused(client: httpx.Client) -> None:
    """A form needs no permission of CORS, so a page of any site could have a browser send one."""
    headers = {"sec-fetch-site": "cross-site", "origin": "http://elsewhere.example"}
    for said in (headers, {"origin": "null"}, {"origin": "http://elsewhere.example"}):
        assert client.post("/twice", files={"data": SMALL}, headers=said).status_code == 403
        assert client.post("/plain", data={"x": "1"}, headers=said).status_code == 403


def test_a_busy_worker_passes_files_on(graph: Served, tmp_path: Path) -> None:
    """Both answers come, whichever worker of two the connection is at: one of them is held."""
    gate = tmp_path / "gate"
    holder = threading.Thread(target=lambda: graph.client().post("/hold", json={"gate": str(gate)}))
    holder.start()
    try:
        eventually(Path(f"{gate}.begun").exists)
        for _ in range(12):  # some of these connections are at the worker that is busy
            with graph.client() as client:
                answer = client.post("/sizes", data={"names": ["a"]}, files={"pages": SMALL})
                assert answer.json() == {"a": len(SMALL)}
                assert client.post("/plain", data={"x": "07"}).json() == 7
                answer = client.post("/twice", content=SMALL, headers=RAW | OCTETS)
                assert (answer.content, answer.headers["content-type"]) == (
                    SMALL * 2,
                    "application/octet-stream",
                )
                answer = client.post(
                    "/describe", content=SMALL, headers=RAW, params={"name": "1", "times": 7}
                )
                assert answer.json() == [256, 7, "1", None, False]
    finally:
        gate.touch()
        holder.join()


def test_media_say_what_is_taken_and_sent(client: httpx.Client) -> None:
    """Through a worker that is free, one that is busy, and a hop."""
    wav = {"content-type": "audio/x-wav"}
    for name, asked in (("*/*", "audio/wav"), ("application/octet-stream",) * 2):
        answer = client.post("/wav", content=SMALL, headers=wav | {"accept": name})
        assert (answer.content, answer.headers["content-type"]) == (SMALL, asked)
    accept = {"accept": "application/json"}
    assert (
        client.post("/wav", files={"audio": ("a", SMALL, "audio/a")}, headers=accept).text[0] == '"'
    )
    answer = client.post(
        "/pages", files=[("pages", ("a.png", SMALL, "image/png"))], data={"title": "5"}
    )
    assert (answer.text, answer.headers["content-type"]) == (
        "<h1>5</h1>1",
        "text/html; charset=utf-8",
    )
    answer = client.post("/places", json={"near": "ü"})
    assert (answer.json(), answer.headers["content-type"]) == (
        {"type": "ü"},
        "application/geo+json",
    )
    large = SMALL * 4
    refused = {
        "type": client.post("/wav", content=SMALL, headers={"content-type": "text/plain"}),
        "size": client.post("/wav", content=large, headers=wav),
        "chunks": client.post("/wav", content=iter([large] * 3), headers=wav),
        "part": client.post("/wav", files={"audio": ("a", SMALL, "text/plain")}),
        "large part": client.post("/wav", files={"audio": ("a", large, "audio/a")}),
        "untyped": client.post("/pages", files=[("pages", ("", SMALL))]),
        "base64": client.post("/wav", json={"audio": "A" * 1336}),
    }
    statuses = {name: answer.status_code for name, answer in refused.items()}
    assert statuses == {
        "type": 415, "size": 413, "chunks": 413, "part": 415, "large part": 413, "untyped": 415, "base64": 413,
    }  # fmt: skip
    for name, answer in refused.items():
        loc = answer.json()["errors"][0]["loc"]
        assert loc == (["pages"] if name == "untyped" else ["audio"])
    assert client.post("/wav", json={"audio": "A" * 1332}).status_code == 200


def test_bytes_are_streamed_as_they_are(client: httpx.Client) -> None:
    wav = {"content-type": "audio/x-wav"}
    pieces = [SMALL * 3, b"", b"b"]
    answer = client.post("/echo", content=iter(pieces), headers=wav)
    assert (answer.content, answer.headers["content-type"]) == (b"".join(pieces), "audio/wav")
    assert answer.headers["transfer-encoding"] == "chunked"
    assert answer.headers["x-content-type-options"] == "nosniff"
    octets = client.post("/echo", content=b"a", headers=wav | OCTETS)
    assert (octets.text, octets.headers["content-type"]) == ("a", "application/octet-stream")
    lines = client.post("/echo", content=b"a", headers=wav | {"accept": "application/x-ndjson"})
    assert lines.text == '"YQ=="\n""\n'
    events = client.post("/echo", content=b"a", headers=wav | {"accept": "text/event-stream"})
    assert events.text.startswith('id: 1\ndata: "YQ=="\n\nid: 2\ndata: ""\n\n')
    rows = client.post("/rows", json={})
    assert rows.text == "0,ü\n1,ü\n" and rows.headers["x-rows"] == "2"
    assert rows.headers["content-type"] == "text/csv; charset=utf-8"
    assert client.post("/rows", json={"count": 0}).content == b""
    assert client.post("/rows", json={"wrong": 0}).status_code == 500
    with pytest.raises(httpx.RemoteProtocolError):  # there is no place for an error: it is cut
        client.post("/rows", json={"wrong": 1})
    said = client.post("/of_a_type", json={"media_type": "text/x-said"})
    assert (said.text, said.headers["content-type"]) == ("ab", "text/x-said")


def test_what_is_streamed_in_is_held_to_its_media(client: httpx.Client) -> None:
    wav = {"content-type": "audio/x-wav"}
    assert client.post("/echo", content=b"a", headers={"content-type": "a/b"}).status_code == 415
    large = client.post("/echo", content=bytes(10**6 + 1), headers=wav)
    assert (large.status_code, large.json()["errors"][0]["loc"]) == (413, ["body"])
    assert client.post("/count", content=iter([SMALL] * 50), headers=RAW).json() == 50 * 256
    part = client.post("/count", content=LARGE, headers=RAW, params={"most": 1000})
    assert 1000 < part.json() < len(LARGE)  # the rest was not read


def test_a_slow_reader_holds_the_producer_and_who_leaves_ends_it(graph: Served) -> None:
    with graph.client() as client, graph.client() as other:
        with client.stream("POST", "/endless", json={}) as answer:
            assert answer.headers["content-type"] == "application/octet-stream"
            for _ in range(30):
                made, still_open = other.post("/state", json={}).json()
            assert made < 1000 and still_open == 1
        client.close()
        eventually(lambda: other.post("/state", json={}).json()[1] == 0)


@pytest.mark.parametrize("content", [b"", SMALL, LARGE], ids=["empty", "small", "large"])
def test_a_file_of_a_form_is_read_as_it_comes(client: httpx.Client, content: bytes) -> None:
    """Over a hop; asynchronously, in a thread, and as what is streamed back."""
    file = {"body": ("a.wav", content, "audio/wav")}
    for _ in range(2):
        answer = client.post(
            "/kept", data={"name": "5", "tags": ["5", "b"], "times": ""}, files=file
        )
        assert answer.json() == [len(content), "5", 1, ["5", "b"]]
        answer = client.post(
            "/kept",
            params={"name": "ü", "tags": "a"},
            data={"times": "07", "tags": "b"},
            files=file,
        )
        assert answer.json() == [len(content), "ü", 7, ["a", "b"]]
        assert client.post("/count", files=file).json() == len(content)
        assert client.post("/echo", files=file).content == content
        assert client.post("/kept", content=content, headers=RAW, params={"name": "a"}).json()[
            0
        ] == len(content)
    early = client.post("/count", data={"most": "1000"}, files={"body": LARGE})
    assert 1000 < early.json() < len(LARGE)  # the rest was not read


def test_what_is_wrong_with_a_form_that_is_read_as_it_comes(client: httpx.Client) -> None:
    file, name = ("body", ("a.wav", SMALL, "audio/wav")), ("name", (None, "a"))
    begun = b'--B\r\nContent-Disposition: form-data; name="name"\r\n\r\na\r\n' + FILE_PART
    answers = {
        "order": client.post("/kept", files=[name, file, ("times", (None, "1")), name]),
        "later": client.post("/kept", files=[file, name]),
        "two files": client.post("/kept", files=[name, file, file]),
        "no file": client.post("/kept", files=[name]),
        "unchosen": client.post("/kept", content=UNCHOSEN % b"body", headers=MULTIPART),
        "missing": client.post("/kept", files=[file]),
        "nobody": client.post("/kept", files=[name, ("nobody", (None, "1")), file]),
        "times": client.post("/kept", files=[name, ("times", (None, "x")), file]),
        "twice": client.post("/kept", params={"name": "b"}, files=[name, file]),
        "text": client.post("/kept", files=[("name", (None, b"\xff")), file]),
        "much text": client.post("/kept", files=[("name", (None, "a" * (FORM_TEXT + 1))), file]),
        "type": client.post("/echo", files={"body": ("a.txt", SMALL, "text/plain")}),
        "size": client.post("/kept", files=[name, ("body", ("a", bytes(10**6 + 1)))]),
        "cut": client.post("/kept", content=begun, headers=MULTIPART),
        "no form": client.post("/kept", content=b"abc", headers=MULTIPART),
        "charset": client.post("/kept", files=[("_charset_", (None, "koi8-r")), name, file]),
        "coded": client.post("/kept", data={"name": "a"}),
    }  # fmt: skip
    assert {name: answer.status_code for name, answer in answers.items()} == {
        "order": 422, "later": 422, "two files": 422, "no file": 422, "unchosen": 422, "missing": 422, "nobody": 422, "times": 422,
        "twice": 422, "text": 422, "much text": 400, "type": 415, "size": 413, "cut": 400, "no form": 400,
        "charset": 400, "coded": 415,
    }  # fmt: skip
    places = {
        name: answer.json()["errors"][0]["loc"]
        for name, answer in answers.items()
        if "errors" in answer.json()
    }
    assert places == {
        "order": ["times"], "later": ["name"], "two files": ["body"], "no file": ["body"], "unchosen": ["body"], "missing": ["name"],
        "nobody": ["nobody"], "times": ["times"], "twice": ["name"], "text": ["name"], "type": ["body"], "size": ["body"],
    }  # fmt: skip
    said = {name: answers[name].json()["errors"][0]["msg"] for name in ("order", "later")}
    assert said["order"] == "'times' comes behind the file 'body', which is the last part"
    assert said["later"] == MISSING
    assert "not valid multipart/form-data" in answers["cut"].json()["detail"]


def test_the_call_begins_with_the_file_and_holds_its_sender_back(
    graph: Served, client: httpx.Client, tmp_path: Path
) -> None:
    """The fields are there, and the rest waits in the kernel; who leaves ends it."""
    for leaves in (False, True):
        gate = tmp_path / f"gate{leaves}"
        size = 64 * 2**20
        said = b'--B\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'
        body = said % (b"gate", str(gate).encode()) + said % (b"name", b"a") + FILE_PART
        with connected(graph) as sock:
            sock.sendall(
                b"POST /kept HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n"
                b"content-type: multipart/form-data; boundary=B\r\n"
                b"content-length: %d\r\n\r\n" % size + body
            )
            sock.setblocking(False)
            sent = 0
            while select.select([], [sock], [], 1)[1] and sent < size:
                sent += sock.send(bytes(2**16))
            assert sent < 2**24, "the sender is not held back"
            eventually(Path(f"{gate}.begun").exists)
            if leaves:  # (its end must not wait behind what it has sent)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                break
            gate.touch()
            sock.setblocking(True)
            answer = sock.recv(65536)
            assert answer.startswith(b"HTTP/1.1 413 "), answer
    eventually(Path(f"{gate}.left").exists)
    form = client.get("/openapi.json").json()["paths"]["/kept"]["post"]["requestBody"]["content"]
    assert form["multipart/form-data"]["schema"]["required"] == ["body"]


@pytest.mark.parametrize("content", [b"", SMALL, LARGE], ids=["empty", "small", "large"])
def test_a_registered_type_comes_and_leaves(client: httpx.Client, content: bytes) -> None:
    text = base64.b64encode(content).decode()
    for answer in (
        client.post("/louder", content=content, headers=RAW),
        client.post("/louder", files={"sound": content}, data={"times": "2"}),
        client.post("/louder", json={"sound": text}),
    ):
        assert answer.headers["content-type"] == "audio/x-raw"
        assert answer.content == content * 2
    asked = client.post("/louder", json={"sound": text}, headers={"accept": "application/json"})
    assert base64.b64decode(asked.json()) == content * 2
    assert client.post("/sounds", files={"sound": content}).json() == [text, text]
    assert client.post("/sounds", json={}).json() == []
    assert client.post("/rates", json={"rates": [1, 2]}).json() == {"1": 1, "2": 2}
    answer = client.post("/rates", files=[("rates", b"5"), ("rates", b"6")])
    assert answer.json() == {"5": 5, "6": 6}


def test_what_is_no_registered_type(client: httpx.Client) -> None:
    for answer in (
        client.post("/louder", content=b"bad", headers=RAW),
        client.post("/louder", json={"sound": "YmFk"}),
        client.post("/louder", json={"sound": "@"}),
        client.post("/louder", json={"sound": None}),
        client.post("/louder", json={"sound": 5}),
        client.post("/rates", files={"rates": b"x"}),
    ):
        assert answer.status_code == 422, answer.text
        assert answer.json()["errors"][0]["loc"][0] in ("sound", "rates")
        assert "samples" not in answer.text  # what user code raised is not told
    body = client.get("/openapi.json").json()["paths"]["/louder"]["post"]
    assert "audio/x-raw" in body["requestBody"]["content"]
    assert "audio/x-raw" in body["responses"]["200"]["content"]


def test_where_forms_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "is_installed", lambda: False)
    signature = Signature.of(Files, "twice")
    api = cast(BoundApi, SimpleNamespace(signature=signature, bodies=BodyReader(signature)))
    with pytest.raises(HttpProblem, match=r"pygraphserve\[uploads\]"):
        decoding.read_arguments(
            api, b"", b"", Format.RAW, None, None, b"multipart/form-data; boundary=x"
        )


async def pieces() -> AsyncIterator[bytes]:
    yield b"a"
    yield b"b"


MISSING = "missing argument 'name': fields come in front of the file"
STREAMED = [[256, "a", 1], [{"loc": ["name"], "msg": MISSING, "type": "missing_argument"}]]
HTTP = [True, "application/octet-stream", [256, 3], 400, 3, STREAMED]


def test_files_between_services_by_http(client: httpx.Client) -> None:
    assert client.post("/by_http", files={"data": SMALL}).json() == HTTP


@pytest.mark.anyio
async def test_files_in_one_process() -> None:
    async with graphserve.local(Files) as files:
        assert await files.twice(SMALL) == SMALL * 2
        assert await files.describe(SMALL, tags=["5"]) == [256, 1, "", ["5"], False]
        assert await files.by_http(SMALL) == HTTP
        assert [piece async for piece in files.echo(pieces())] == [b"a", b"", b"b", b""]
        assert await files.count(iter([b"a", b"bc"])) == 3
        assert [row async for row in files.rows(1)] == ["0,ü\n"]
        assert (await files.louder(Sound(SMALL))).samples == SMALL * 2
        assert list(await files.rates([Rate(1)])) == ["1"]
        assert await files.wav(SMALL * 8) == SMALL * 8  # (of clients, not of services)
        assert await files.pages([SMALL], "a") == "<h1>a</h1>1"
        assert await files.places("b") == {"type": "b"}
        assert await files.sizes([SMALL, b""], ["a", "b"]) == {"a": 256, "b": 0}
