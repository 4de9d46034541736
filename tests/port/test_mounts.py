"""What is mounted at the port beside the APIs: FastAPI, Starlette, WSGI, a folder; their life, their
requests, and what clients may do to them.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from graphserve.declare.mounts import Mount, app_problem, kind_of
from graphserve.errors import StartupError
from graphserve.graph.mounts import problem
from graphserve.worker.mounts.lifespan import Lifespan
from tests.apps import mounted
from tests.harness import InThread, Served, alive, eventually, served
from tests.hostile.wire import Answer, address, answers, read_to_end, sends_on

ENTRY = "n1"  # the folder of the node


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("notes")


@pytest.fixture(scope="module")
def graph(notes: Path) -> Iterator[Served]:
    flags = (
        "--access-log",
        "--max-body-size",
        "5MB",
        "--timeout-client",
        "1",
        "--cors-origin",
        "https://app.test",
    )
    with served("mounted:Gateway", *flags, env={"NOTES": str(notes)}) as graph:
        yield graph


def noted(notes: Path) -> list[str]:
    path = notes / "notes"
    return path.read_text().splitlines() if path.exists() else []


def raw(graph: Served, *parts: bytes) -> list[Answer]:
    with socket.create_connection(address(graph), 30) as sock:
        for part in parts:
            sock.sendall(part)
        return answers(read_to_end(sock), ended=True)


# --- what they answer ---

SITE = "<!doctype html><title>site</title>\n"


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/ui/star/", 200, '{"path":"/ui/star/"}'), ("/ui/star/deep/er?x=1", 200, '{"path":"/ui/star/deep/er"}'),
        ("/ui/nothing", 404, '{"detail":"Not Found"}'), ("/%75i/star/", 200, '{"path":"/ui/star/"}'),
        ("/old/a/b%20c?x", 200, "/a/b c GET  in a thread"),
        ("/site/", 200, SITE), ("/site/index.html", 200, SITE), ("/site/style.css", 200, "body {}\n"), ("/site/sub/page.html", 200, "deep\n"),
        ("/site/.env", 404, "there is no file /.env"), ("/site/sub/../.env", 404, None), ("/site/%2eenv", 404, "there is no file"),
        ("/site/..%2f..%2fmounted.py", 404, "there is no file"), ("/site/nothing", 404, "there is no file /nothing"), ("/site//style.css", 200, None),
        ("/ui", 307, ""), ("/ui?x=1", 307, ""), ("/site", 307, ""), ("/ui/star", 307, ""),
        ("/", 200, "the rest: GET /"), ("/uix", 200, "the rest: GET /uix"), ("/what/ever", 200, "the rest: GET /what/ever"),
        # what is the service's own stays so
        ("/run", 405, "/run takes POST, not GET"), ("/items/3", 200, '"3"'), ("/livez", 200, '"status": "ok"'), ("/docs", 200, "<title>Gateway"),
        ("/openapi.json", 200, '"openapi"'),
    ],
)  # fmt: skip
def test_each_path_has_one_that_answers(
    graph: Served, path: str, status: int, text: str | None
) -> None:
    (answer,) = raw(
        graph, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    )
    assert answer.status == status, answer
    if status == 307:
        bare, mark, query = path.partition("?")
        assert answer.headers["location"] == f"{bare}/{mark}{query}", (
            "a path alone, whatever Host says"
        )
    elif path == "/site/sub/../.env":
        pass
    elif text is not None:
        assert text in answer.body.decode()


def test_a_folder_answers_as_files_are_asked_for(graph: Served) -> None:
    with graph.client() as client:
        page = client.get("/site/style.css")
        assert page.headers["content-type"].startswith("text/css") and page.headers["x-request-id"]
        known = client.get("/site/style.css", headers={"if-none-match": page.headers["etag"]})
        assert (known.status_code, known.content) == (304, b"")
        part = client.get("/site/style.css", headers={"range": "bytes=0-3"})
        assert (part.status_code, part.text) == (206, "body")
        for none in (
            "bytes=",
            "bytes=-",
            "bytes=3-1",
            "bytes=x-2",
            "lines=1-2",
            "bytes",
            "bytes=1-2,",
            "bytes=0-1,5-4",
            "bytes=" + "9" * 5000 + "-",
        ):
            whole = client.get("/site/style.css", headers={"range": none})
            assert (whole.status_code, whole.text) == (200, page.text), none
        twice = client.get(
            "/site/style.css", headers=[("range", "bytes=0-1"), ("range", "bytes=2-3")]
        )
        assert twice.status_code == 200
        out = client.get("/site/style.css", headers={"range": "bytes=8-"})
        assert (out.status_code, out.content) == (416, b"")
        assert out.headers["content-range"] == "bytes */8"
        several = client.get("/site/style.css", headers={"range": "bytes=0-1, 4-5"})
        assert several.headers["content-type"].startswith("multipart/byteranges")
        head = client.head("/site/style.css")
        assert (head.status_code, head.content) == (200, b"") and head.headers[
            "content-length"
        ] == "8"
        refused = client.put("/site/style.css", content=b"x")
        assert refused.status_code == 405 and refused.headers["allow"] == "GET, HEAD"


def test_the_request_in_hand_is_theirs(graph: Served) -> None:
    with graph.client(headers={"X-Tenant": "blue", "X-Request-Id": "mine"}) as client:
        answer = client.get("/ui/hello/x", headers={"X-Request-Timeout": "50"})
        said = answer.json()
        here = {
            "id": "mine",
            "principal": None,
            "path": "/ui/hello/x",
            "tenant": "blue",
            "service": None,
            "deadline": True,
        }
        assert said["here"] == here and answer.headers["x-request-id"] == "mine"
        assert said["below"] == here | {"path": "/tell", "service": "Gateway"}
        assert said["opened"] and said["root"] == "/ui", "what its lifespan yields, and where it is"
        assert client.get("/ui/sync").json()["service"] == "Gateway", "from a thread too"
        escaped = client.get("/ui/path/a%2Fb/c%20d").json()
        assert escaped["rest"] == "a/b/c d" and escaped["raw"] == "/ui/path/a%2Fb/c%20d"
        assert escaped["url"].endswith("/ui/hello/x")
        assert client.post("/old/x", content=b"sent").text == "/x POST sent in a thread"
        late = client.get("/ui/hello/x", headers={"X-Request-Timeout": "nonsense"})
        assert late.status_code == 200, "it is for APIs to refuse that"


def test_behind_a_proxy_paths_are_right(tmp_path: Path) -> None:
    path = tempfile.mkdtemp(prefix="gs-test-") + "/s"
    proxy = ("--root-path", "/pre", "--proxy-headers", "--forwarded-allow-ips", "*")
    with served("mounted:Gateway", "--uds", path, *proxy, env={"NOTES": str(tmp_path)}):
        transport = httpx.HTTPTransport(uds=path)
        with httpx.Client(transport=transport, base_url="http://a.test", timeout=60) as client:
            for prefix in ("", "/pre"):  # which the proxy takes off, or leaves
                said = client.get(
                    prefix + "/ui/path/x", headers={"x-forwarded-proto": "https"}
                ).json()
                assert said == {
                    "rest": "x",
                    "url": "https://a.test/pre/ui/hello/x",
                    "raw": "/pre/ui/path/x",
                }
                assert client.get(prefix + "/ui/star/deep/er").json() == {
                    "path": "/pre/ui/star/deep/er"
                }
                assert client.get(prefix + "/ui").headers["location"] == "/pre/ui/"
                assert client.get(prefix + "/site/style.css").text == "body {}\n"
                assert client.get(prefix + "/old/x").headers["x-script"] == "/pre/old"


# --- bodies ---


def test_bodies_come_whole_and_bounded(graph: Served) -> None:
    data = os.urandom(3_000_000)
    with graph.client() as client:
        said = client.post("/ui/upload", files={"file": ("a.bin", data)}).json()
        assert said == {
            "name": "a.bin",
            "size": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        pieces = iter([data[:100], data[100:70_000], data[70_000:]])
        assert client.post("/ui/count", content=pieces).json() == len(data)
        assert client.post("/ui/count").json() == 0
        for large in (data * 2, iter([data, data])):
            refused = client.post("/ui/count", content=large)
            assert refused.status_code == 413 and refused.json()["service"] == "Gateway"
        for _ in range(3):  # what nobody reads is thrown away, and the connection goes on
            assert client.post("/ui/ignores", content=data).json() == "ignored"
        assert client.get("/ui/stream?n=1000").text == "".join(f"{n}\n" for n in range(1000))
        assert client.head("/ui/stream?n=1000").status_code == 405


def test_who_waits_to_be_told_is_told_when_it_is_read(graph: Served) -> None:
    head = b" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nConnection: close\r\nExpect: 100-continue\r\n\r\n"
    with socket.create_connection(address(graph), 30) as sock:
        sock.sendall(b"POST /ui/count" + head)
        assert sock.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"abc")
        (answer,) = answers(read_to_end(sock))
    assert answer.body == b"3"
    (refused,) = raw(graph, b"POST /ui/ignores" + head.replace(b"Connection: close\r\n", b""))
    assert refused.body == b'"ignored"' and refused.headers["connection"] == "close", (
        "nobody asked for it"
    )


def test_requests_that_were_sent_ahead_have_their_answers_in_turn(graph: Served) -> None:
    def ask(method: str, path: str, body: str = "") -> bytes:
        return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()

    last = b"GET /site/style.css HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    together = (
        ask("POST", "/ui/count", "abcd")
        + ask("POST", "/run")
        + ask("GET", "/ui/stream?n=2")
        + ask("POST", "/old/", "x")
    )
    for parts in (
        [together + last],
        [together[i : i + 7] for i in range(0, len(together), 7)] + [last],
    ):
        assert [answer.body for answer in raw(graph, *parts)] == [
            b"4",
            b'"an API"',
            b"0\n1\n",
            b"/ POST x in a thread",
            b"body {}\n",
        ]


@pytest.mark.parametrize(
    ("target", "length", "said"),
    [
        (b"/ui/ignores", 100, b"ignored"),  # all but its first byte comes behind the answer
        (b"/ui/count", 0, b"0"),
        (b"/old/x", 0, None),
        (b"/site/nothing", 0, None),
    ],
)
def test_who_sends_on_behind_the_last_answer_reads_it_and_no_reset(
    graph: Served, target: bytes, length: int, said: bytes | None
) -> None:
    head = b"POST %b HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
    (answer,) = sends_on(graph, head % (target, length) + b"x"[:length])
    assert answer.status < 500
    if said is not None:
        assert said in answer.body


def test_http_1_0_has_no_chunks(graph: Served) -> None:
    (answer,) = raw(graph, b"GET /ui/stream?n=3 HTTP/1.0\r\n\r\n")
    assert answer.body == b"0\n1\n2\n" and "transfer-encoding" not in answer.headers


def test_who_sends_too_slowly_is_told_so(graph: Served) -> None:
    with socket.create_connection(address(graph), 30) as sock:
        sock.sendall(
            b"POST /ui/count HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90000\r\n\r\nabc"
        )
        (answer,) = answers(read_to_end(sock))
    assert answer.status == 408 and "slower" in answer.problem["detail"]


def test_a_client_that_leaves_ends_what_its_request_called(graph: Served, notes: Path) -> None:
    with socket.create_connection(address(graph), 30) as sock:
        sock.sendall(b"GET /ui/wait HTTP/1.1\r\nHost: localhost\r\n\r\n")
        eventually(lambda: "waits" in noted(notes))
    eventually(lambda: "cancelled" in noted(notes))
    assert "failed at /ui/wait" not in graph.text


def test_an_error_of_an_application_is_in_the_log(graph: Served) -> None:
    with graph.client() as client:
        answer = client.get("/ui/raises", headers={"X-Request-Id": "broken-1"})
        assert (answer.status_code, answer.text) == (500, "Internal Server Error")
    graph.wait_log("the application failed at /ui/raises")
    graph.wait_log(r"GET /ui/raises 500 [0-9.]+ ms \[request broken-1\]")


# --- who may ---


def test_pages_of_other_sites_may_not_write_and_may_read_a_link(graph: Served) -> None:
    with graph.client() as client:
        evil = {"Origin": "https://evil.test", "Sec-Fetch-Site": "cross-site"}
        assert client.post("/ui/ignores", headers=evil).status_code == 403
        assert client.get("/ui/star/", headers=evil).status_code == 200
        app = {"Origin": "https://app.test", "Sec-Fetch-Site": "cross-site"}
        let_in = client.post("/ui/ignores", headers=app)
        assert (
            let_in.json() == "ignored"
            and let_in.headers["access-control-allow-origin"] == "https://app.test"
        )


# --- their life ---


def test_a_lifespan_that_fails_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(mounted, "NOTES", tmp_path)
    (tmp_path / "broken").touch()

    async def start(app: Any) -> None:
        lifespan = Lifespan(app, "/ui", "Gateway", {})
        await lifespan.start()
        await lifespan.stop()

    with pytest.raises(
        StartupError, match=r"the application at /ui did not start: .*the database is gone"
    ) as caught:
        asyncio.run(start(mounted.app))
    assert "mounted.py" in caught.value.log, "the traceback is there"
    (tmp_path / "broken").unlink()
    asyncio.run(start(mounted.app))
    assert noted(tmp_path) == ["app starts", "app stops"]
    asyncio.run(start(mounted.rest))  # it raises at what is no request, and needs no lifespan


@pytest.mark.parametrize(
    ("mount", "said"),
    [
        (Mount("/a", target="mounted:starlette"), None), (Mount("/a", app=mounted.wsgi), None), (Mount("/a", folder="/nowhere"), None),
        (Mount("/a", target="mounted:nothing"), "names nothing in the module 'mounted'"),
        (Mount("/a", target="mounted:FOLDER"), "it is an ASGI application"), (Mount("/a", target="mounted:FastAPI"), "not the class FastAPI"),
    ],
)  # fmt: skip
def test_what_is_missing_is_said(
    mount: Mount, said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mounted", mounted)
    found = problem(mount)
    assert found is None if said is None else said in str(found)


def test_which_kind_an_application_is() -> None:
    class Wsgi:
        def __call__(self, environ: Any, start_response: Any) -> Any: ...

    class Asgi:
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...

    assert [kind_of(each) for each in (mounted.app, mounted.starlette, mounted.rest, Asgi())] == [
        "asgi"
    ] * 4
    assert [kind_of(each) for each in (mounted.wsgi, Wsgi())] == ["wsgi"] * 2
    assert [kind_of(each) for each in (Asgi, 3, print, lambda: 0)] == [None] * 4
    blocks = type("Blocks", (), {"__module__": "gradio.blocks", "launch": 0})()
    assert "gradio.routes.App.create_app(blocks)" in str(app_problem(blocks))


def test_the_fallback_server_says_that_they_are_not_there(graph: Served, notes: Path) -> None:
    (notes / "slow").touch()
    for worker in graph.workers(ENTRY):
        os.kill(worker, signal.SIGKILL)
        eventually(lambda worker=worker: not alive(worker))
    graph.wait_log("a fallback server is at the public port")
    with graph.client() as client:
        for path in ("/ui/hello/x", "/site/", "/"):
            answer = client.get(path)
            assert answer.status_code == 503 and "takes no calls now" in answer.json()["detail"]
        (notes / "slow").unlink()
        assert client.post("/run", json={}).json() == "an API"
        assert eventually(lambda: client.get("/ui/star/").status_code == 200)


def test_a_drain_answers_what_they_have_and_stops_them_before_the_service(
    graph: Served, notes: Path, tmp_path: Path
) -> None:
    eventually(lambda: len(graph.workers(ENTRY)) == 2 and not graph.fallback_servers())
    (notes / "notes").unlink()
    with graph.client() as client, graph.client() as other:
        slow = InThread(lambda: client.get(f"/ui/slow?gate={tmp_path}/gate").json())
        eventually(lambda: "slow begins" in noted(notes))
        assert other.get("/ui/later").json() == "now"
        graph.signal()
        eventually(lambda: not listens(graph))
        assert "app stops" not in noted(notes), "it waits for what it has"
        (tmp_path / "gate").touch()
        assert slow.answer() == "done"
        assert graph.wait_exit() == 0
    said = noted(notes)
    assert said.count("app stops") == said.count("service leaves") > 0 and "later is done" in said
    assert said.index("app stops") < said.index("service leaves") and said[-1] == "service leaves"


def listens(graph: Served) -> bool:
    try:
        socket.create_connection(address(graph), 30).close()
    except ConnectionError:
        return False
    return True
