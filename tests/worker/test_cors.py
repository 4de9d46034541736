"""Pages of other origins that may call: which they are, what their browsers are told, beside
Starlette's `CORSMiddleware`, and what a real browser then does.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from chromium import CHROMIUM, Browser, page_elsewhere
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from graphserve.declare.origins import are_origins, normal
from graphserve.wire.problem import HttpProblem
from graphserve.worker.http.cors import Cors
from tests.harness import Served, rarely, served
from tests.hostile.wire import Answer, address, answers, read_to_end

# --- origins ---


@pytest.mark.parametrize(
    ("given", "is_one", "is_known_as"),
    [
        ("https://a.test", True, "https://a.test"), ("HTTPS://A.Test:443", True, "https://a.test"),
        ("http://localhost:3000", True, "http://localhost:3000"), ("http://a:80", True, "http://a"),
        ("http://[::1]:8000", True, "http://[::1]:8000"), ("https://*.a.test", True, "https://*.a.test"),
        ("chrome-extension://abcdef", True, "chrome-extension://abcdef"), ("capacitor://localhost", True, "capacitor://localhost"),
        ("a.test", False, None), ("https://a.test/", False, None), ("https://a.test/x", False, None), ("null", False, None),
        ("https://", False, None), ("https://a b", False, None), ("https://u@a.test", False, None), ("https://*", False, None),
        ("https://a.*.test", False, None), ("https://*a.test", False, None), ("//a.test", False, None), ("", False, None),
        ("https://a.test:", False, None), ("https://a.test:x", False, None), ("https://ü.test", False, None), ("https://a.test\n", False, None),
    ],
)  # fmt: skip
def test_what_an_origin_is(given: str, is_one: bool, is_known_as: str | None) -> None:
    assert normal(given) == is_known_as
    assert are_origins((given,)) is is_one


def test_every_page_stands_alone() -> None:
    assert are_origins(("*",)) and are_origins(())
    assert not are_origins(("*", "https://a.test")) and not are_origins((3,))


@pytest.mark.parametrize(
    ("origin", "is_allowed"),
    [
        (b"https://a.test", True), (b"https://A.test:443", True), (b"https://x.b.test", True), (b"https://x.y.b.test:443", True),
        (b"http://a.test", False), (b"https://a.test:8443", False), (b"https://b.test", False), (b"https://xb.test", False),
        (b"https://.b.test", False), (b"http://x.b.test", False), (b"https://x.b.test.evil", False), (b"https://evil/x.b.test", False),
        (b"https://x.b.test:1", False), (b"https://*.b.test", False), (b"null", False), (b"", False), (b"*", False), (b"\xff", False),
        (b"https://a.test, https://evil.test", False), (b"https://a.test.evil.test", False), (b"https://x.c.test:81", True),
        (b"https://x.c.test", False),
    ],
)  # fmt: skip
def test_which_origins_are_allowed(origin: bytes, is_allowed: bool) -> None:
    cors = Cors(("https://a.test", "https://*.b.test", "https://*.c.test:81"))
    assert cors.allows(origin) is is_allowed
    assert Cors(("*",)).allows(origin)
    asked = [(b"origin", origin), (b"access-control-request-method", b"POST")]
    assert isinstance(cors.preflight(asked), HttpProblem) is not is_allowed


def test_what_is_asked_for_twice_is_not_allowed() -> None:
    cors = Cors(("https://a.test",))
    twice = [(b"origin", b"https://a.test")] * 2
    assert cors.origin(twice) is None and cors.origin(twice[:1]) == b"https://a.test"


# --- a real port ---


@pytest.fixture(scope="module")
def graph() -> Iterator[Served]:
    with served("cors:Shared", "--access-log", "--max-body-size", "1000") as graph:
        yield graph


def ask(port: tuple[str, int], head: str, body: str = "") -> Answer:
    framing = f"Host: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    with socket.create_connection(port, 30) as sock:
        sock.sendall(head.replace("\n", "\r\n").encode("latin-1") + framing.encode())
        (answer,) = answers(read_to_end(sock))
    return answer


def leave(answer: Answer) -> dict[str, str]:
    """What an answer tells browsers."""
    return {
        name.removeprefix("access-control-"): value
        for name, value in answer.headers.items() if name.startswith("access-control-") or name == "vary"
    }  # fmt: skip


OWN = {"vary": "Origin"}
ALLOWED = {"allow-origin": "https://app.test", "allow-credentials": "true", "vary": "Origin"}
READABLE = ALLOWED | {"expose-headers": "x-request-id"}
APP = "Origin: https://app.test\nSec-Fetch-Site: cross-site\n"
JSON = "Content-Type: application/json\n"


@pytest.mark.parametrize(
    ("head", "body", "status", "told"),
    [
        (f"POST /twice HTTP/1.1\n{APP}{JSON}", '{"x": 2}', 200, READABLE),
        (f"POST /twice HTTP/1.1\n{APP}{JSON}", '{"x": "2"}', 422, READABLE),
        (f"POST /twice HTTP/1.1\n{APP}{JSON}", "x" * 2000, 413, READABLE),
        (f"POST /twice HTTP/1.1\n{APP}", "{}", 415, READABLE),
        (f"POST /refuses HTTP/1.1\n{APP}", "", 409, READABLE | {"expose-headers": "x-holder, x-request-id"}),
        (f"POST /raises HTTP/1.1\n{APP}", "", 500, READABLE),
        (f"POST /sync HTTP/1.1\n{APP}", "", 200, READABLE),
        (f"GET /read HTTP/1.1\n{APP}", "", 200, READABLE | {"expose-headers": "x-request-id, x-tenant"}),
        (f"GET /numbers?n=3 HTTP/1.1\n{APP}Accept: text/event-stream\n", "", 200, READABLE),
        (f"GET /numbers?n=x HTTP/1.1\n{APP}Accept: text/event-stream\n", "", 422, READABLE),
        (f"GET /nothing HTTP/1.1\n{APP}", "", 404, READABLE),
        (f"DELETE /read HTTP/1.1\n{APP}", "", 405, READABLE | {"expose-headers": "allow, x-request-id"}),
        (f"GET /openapi.json HTTP/1.1\n{APP}", "", 200, None),
        (f"GET /livez HTTP/1.1\n{APP}", "", 200, READABLE),
        (f"POST /twice HTTP/1.1\n{APP}Transfer-Encoding: gzip\n", "", 400, None),
        (f"OPTIONS /twice HTTP/1.1\n{APP}", "", 204, READABLE | {"expose-headers": "allow, x-request-id"}),
        ("POST /twice HTTP/1.1\nOrigin: http://localhost:3000\nContent-Type: application/json\n", '{"x": 2}', 200,
         READABLE | {"allow-origin": "http://localhost:3000"}),
        ("POST /sync HTTP/1.1\nOrigin: https://a.team.test\n", "", 200, READABLE | {"allow-origin": "https://a.team.test"}),
        # who is not allowed is refused as ever
        ("POST /sync HTTP/1.1\nOrigin: https://evil.test\n", "", 403, OWN),
        ("POST /sync HTTP/1.1\nOrigin: null\n", "", 403, OWN),
        ("POST /sync HTTP/1.1\nSec-Fetch-Site: cross-site\n", "", 403, OWN),
        ("POST /sync HTTP/1.1\nOrigin: https://app.test\nOrigin: https://evil.test\n", "", 403, None),
        ("GET /read HTTP/1.1\nOrigin: https://evil.test\n", "", 403, OWN),
        ("GET /docs HTTP/1.1\nOrigin: https://evil.test\n", "", 200, OWN),
        ("POST /sync HTTP/1.1\n", "", 200, OWN),
        ("POST /sync HTTP/1.0\n", "", 200, OWN),
    ],
)  # fmt: skip
def test_what_pages_are_told(graph: Served, head: str, body: str, status: int, told: Any) -> None:
    answer = ask(address(graph), head, body)
    assert answer.status == status, answer
    assert told is None or leave(answer) == told
    if status == 403:
        assert "--cors-origin" in answer.problem["detail"]


def test_the_answers_of_one_connection_are_each_for_their_own_page(graph: Served) -> None:
    """Sent ahead, in one read: known heads, pages, strangers and none."""
    plain = b"POST /sync HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
    app = plain.replace(b"Host", b"Origin: https://app.test\r\nHost")
    local = plain.replace(b"Host", b"Origin: http://localhost:3000\r\nHost")
    with socket.create_connection(address(graph), 30) as sock:
        sock.sendall(
            plain
            + app
            + plain
            + local
            + plain
            + plain.replace(b"Host", b"Connection: close\r\nHost")
        )
        got = answers(read_to_end(sock))
    assert [answer.status for answer in got] == [200] * 6
    assert [answer.headers.get("access-control-allow-origin") for answer in got] == [
        None, "https://app.test", None, "http://localhost:3000", None, None,
    ]  # fmt: skip


def test_a_call_that_a_sibling_takes_is_told_so_too(graph: Served, tmp_path: Path) -> None:
    """Both workers execute one call at a time: of three, one at least is passed on."""
    gate = tmp_path / "gate"
    head = f"POST /hold HTTP/1.1\n{APP}{JSON}"
    got: list[Answer] = []
    ask_once = lambda: got.append(ask(address(graph), head, f'{{"gate": "{gate}"}}'))  # noqa: E731
    threads = [threading.Thread(target=ask_once) for _ in range(3)]
    for thread in threads:
        thread.start()
    gate.touch()
    for thread in threads:
        thread.join()
    assert [(answer.status, leave(answer)) for answer in got] == [(200, READABLE)] * 3


# --- beside Starlette ---


@pytest.fixture(scope="module")
def starlette() -> Iterator[tuple[str, int]]:
    async def twice(request: Request) -> JSONResponse:
        return JSONResponse(4)

    middleware = Middleware(
        CORSMiddleware,
        allow_origins=["https://app.test", "http://localhost:3000"],
        allow_methods=["*"],
        allow_headers=["*"],
        allow_credentials=True,
        expose_headers=["x-request-id"],
    )
    app = Starlette(routes=[Route("/twice", twice, methods=["POST"])], middleware=[middleware])
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
    sock = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([sock])))
    thread.start()
    yield sock.getsockname()
    server.should_exit = True
    thread.join()


PREFLIGHT = "OPTIONS /twice HTTP/1.1\nOrigin: https://app.test\nAccess-Control-Request-Method: "
EVERY_METHOD = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT, QUERY"
FOREIGN = "Origin: https://evil.test\n"


@pytest.mark.parametrize(
    ("head", "ours", "theirs"),
    [
        # the same of both
        (f"{PREFLIGHT}POST\n", {}, {}),
        (f"{PREFLIGHT}POST\nAccess-Control-Request-Headers: authorization,content-type\n", {}, {}),
        (f"{PREFLIGHT}QUERY\nCookie: a=b\n", {}, {}),
        (f"POST /twice HTTP/1.1\n{APP}{JSON}", {}, {}),
        (f"POST /twice HTTP/1.1\n{APP}{JSON}Cookie: a=b\n", {}, {}),
        ("POST /twice HTTP/1.1\nOrigin: http://localhost:3000\nContent-Type: application/json\n", {}, {}),
        (f"GET /nothing HTTP/1.1\n{APP}", {}, {}),
        (f"POST /twice HTTP/1.1\n{JSON}", {}, {}),
        # A page that may not call executes nothing; there the call is executed, and its answer not shown.
        (f"POST /twice HTTP/1.1\n{FOREIGN}{JSON}", {"status": 403}, {"status": 200, "allow-credentials": "true", "expose-headers": "x-request-id"}),
        # Who is not allowed is told nothing.
        (f"GET /nothing HTTP/1.1\n{FOREIGN}", {}, {"allow-credentials": "true", "expose-headers": "x-request-id"}),
        # A refused preflight is a problem, as every refusal is, and has no headers that would allow something.
        (f"OPTIONS /twice HTTP/1.1\n{FOREIGN}Access-Control-Request-Method: POST\n", {"status": 403},
         {"status": 400, "allow-credentials": "true", "allow-methods": EVERY_METHOD, "max-age": "600"}),
        (f"{PREFLIGHT}FOO\n", {"status": 403},
         {"status": 400, "allow-origin": "https://app.test", "allow-credentials": "true", "allow-methods": EVERY_METHOD, "max-age": "600"}),
        # What is no name of a header is not allowed; there it is sent back.
        (f"{PREFLIGHT}POST\nAccess-Control-Request-Headers: x-a, b c\n", {"allow-headers": "x-a"}, {"allow-headers": "x-a,b c"}),
        # An OPTIONS that asks for no leave is answered with what the path takes.
        (f"OPTIONS /twice HTTP/1.1\n{APP}", {"status": 204, "expose-headers": "allow, x-request-id"}, {"status": 405, "expose-headers": "x-request-id"}),
    ],
)  # fmt: skip
def test_beside_starlette(
    graph: Served,
    starlette: tuple[str, int],
    head: str,
    ours: dict[str, Any],
    theirs: dict[str, Any],
) -> None:
    def said(port: tuple[str, int]) -> dict[str, Any]:
        answer = ask(port, head, '{"x": 2}' if head.startswith("POST") else "")
        found: dict[str, Any] = {"status": answer.status, **leave(answer)}
        if "allow-headers" in found:
            found["allow-headers"] = found["allow-headers"].replace(", ", ",")
        return found

    one, other = said(address(graph)), said(starlette)
    differing = {name for name in {*one, *other} if one.get(name) != other.get(name)}
    assert {name: one.get(name) for name in differing} == {
        name: ours.get(name) for name in {*ours, *theirs}
    }, (one, other)
    assert {name: other.get(name) for name in differing} == {
        name: theirs.get(name) for name in {*ours, *theirs}
    }


# --- every page, and a real browser ---


@pytest.fixture(scope="module")
def other_site() -> Iterator[str]:
    with page_elsewhere() as address:
        yield address


CALLS = """
(async () => {
  const to = "TARGET", read = async (path, init) => {
    try {
      const answer = await fetch(to + path, init);
      return [answer.status, !!answer.headers.get("x-request-id"), await answer.text()];
    } catch (error) { return [0, false, "failed"]; }
  };
  const json = {"Content-Type": "application/json", "Authorization": "Bearer x", "X-Own": "1"};
  return await Promise.all([
    read("/twice", {method: "POST", headers: json, body: '{"x": 21}'}),
    read("/twice", {method: "POST", headers: json, body: '{"x": 21}', credentials: "include"}),
    read("/read", {method: "PUT"}),
    read("/nothing"),
    new Promise((done) => {
      const events = [], source = new EventSource(to + "/numbers?n=2");
      source.onmessage = (event) => events.push(event.data);
      source.onerror = () => { source.close(); done(events.join()); };
    }),
  ]);
})()
"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
@pytest.mark.parametrize("origins", ["this", rarely("*"), rarely("https://else.test")])
def test_a_real_browser(origins: str, other_site: str, tmp_path: Path) -> None:
    allowed = other_site if origins == "this" else origins
    with served("cors:Shared", "--cors-origin", allowed) as graph:
        browser = Browser(tmp_path)
        try:
            browser.open(other_site, "document.title == 'other'")
            said = browser.run(CALLS.replace("TARGET", graph.url))
        finally:
            browser.close()
    if origins == "https://else.test":
        assert said == [[0, False, "failed"]] * 4 + [""], "the flag takes the place of the option"
        return
    called, with_cookies, put, nothing, events = said
    assert called == [200, True, "42"]
    # cookies are for pages that are named
    assert with_cookies == ([200, True, "42"] if origins == "this" else [0, False, "failed"])
    assert put[:2] == [200, True]
    assert nothing[0] == 404 and events == "0,1"
