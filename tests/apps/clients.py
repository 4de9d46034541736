"""What users do with injected httpx clients, as scenarios that a caller runs by name: each gives
plain values.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx

import graphserve
from graphserve import Batch, Problem, api, depends, service
from tests.apps.httpx_behaviours import BEHAVIOURS

URL = os.environ.get("BACK_URL", "http://127.0.0.1:1")
PIECE = b"x" * 50_000


@service
class Leaf:
    """What is below the node that the clients are bound to."""

    @api
    async def sleep(self, seconds: float) -> int:
        await asyncio.sleep(seconds)
        return 1

    @api
    def block(self, seconds: float) -> int:
        threading.Event().wait(seconds)
        return 1

    @api
    async def trace(self) -> dict[str, str]:
        return graphserve.trace_context()


@service(concurrency=4)
class Back:
    """The node that the clients are bound to."""

    leaf = depends(Leaf)

    def __init__(self) -> None:
        self.executed: list[str] = []
        self.gone = 0

    @api
    async def note(self, word: str) -> list[str]:
        self.executed.append(word)
        return self.executed

    @api
    async def answer(self, status: int, headers: dict[str, str]) -> int:
        raise Problem(status, "As asked", headers=headers)

    @api
    async def items(self, n: int) -> AsyncIterator[int]:
        for index in range(n):
            yield index

    @api
    async def endless(self) -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            self.gone += 1

    @api
    async def left(self) -> int:
        return self.gone

    @api
    async def breaks(self) -> AsyncIterator[int]:
        yield 1
        await asyncio.sleep(0.05)  # so that the head is with the client
        raise ValueError("hidden")

    @api
    async def echo(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[int]:
        async for chunk in chunks:
            yield len(chunk)

    @api
    async def size(self, chunks: AsyncIterator[bytes]) -> int:
        return sum([len(chunk) async for chunk in chunks])

    @api(method="GET")
    async def seen(self, a: list[str] = [], b: str = "", q: str = "") -> dict[str, Any]:  # noqa: B006
        request = graphserve.request()
        return {"query": request.query, "headers": dict(request.headers)}

    @api
    async def raw(self, body: bytes) -> list[Any]:
        headers = graphserve.request().headers
        return [body.decode(), headers.get("content-type"), headers.get("content-length")]

    @api
    async def leads(self, status: int, location: str) -> None:
        answer = graphserve.request().answer
        answer.status = status
        answer.headers["location"] = location

    @api(method="GET")
    async def loops(self) -> None:
        await self.leads(307, "/loops")

    @api
    async def total(self, xs: list[int]) -> int:
        return sum(xs)

    @api
    async def sleep(self, seconds: float) -> int:
        return await self.leaf.sleep(seconds)

    @api
    def block(self, seconds: float) -> int:
        return self.leaf.block(seconds).result()

    @api(timeout=0.1)
    async def hasty(self) -> int:
        await asyncio.sleep(30)
        return 1

    @api
    async def trace(self) -> list[dict[str, str]]:
        return [graphserve.trace_context(), await self.leaf.trace()]

    @api
    def trace_in_thread(self) -> list[dict[str, str]]:
        return [graphserve.trace_context(), self.leaf.trace().result()]

    @api(batch=Batch(max_size=1, max_wait=0.001))
    async def trace_in_batch(self, xs: list[int]) -> list[list[dict[str, str]]]:
        return [[graphserve.trace_context(), await self.leaf.trace()] for _ in xs]

    @api
    async def trace_of_items(self) -> AsyncIterator[list[dict[str, str]]]:
        yield [graphserve.trace_context(), await self.leaf.trace()]

    @api
    async def trace_of_upload(self, chunks: AsyncIterator[bytes]) -> list[dict[str, str]]:
        return [graphserve.trace_context(), await self.leaf.trace()]

    @api
    async def spans(self) -> list[dict[str, str]]:
        """What is called in a span of its own, beside one that is not."""

        async def in_span() -> dict[str, str]:
            graphserve.set_trace_context({"Traceparent": SPAN})
            return await self.leaf.trace()

        inside = await asyncio.gather(in_span(), self.leaf.trace())
        return [*inside, await self.leaf.trace()]


SPAN = f"00-{'5' * 32}-{'6' * 16}-01"


async def pieces() -> AsyncIterator[bytes]:
    for _ in range(20):
        yield PIECE


def pieces_in_thread() -> Iterator[bytes]:
    for _ in range(20):
        yield PIECE


# What may not stand in a head: method, target, headers. `POST /note` with what is smuggled would
# execute it.
SMUGGLED = (
    "x\r\n"
    "content-length: 0\r\n"
    "\r\n"
    "POST /note HTTP/1.1\r\n"
    "host: x\r\n"
    "content-length: 20\r\n"
    "\r\n"
    '{"word": "smuggled"}'
)
HOSTILE: list[tuple[str, str, dict[str, str]]] = [
    *(("POST", "/note", {"x-user": f"a{end}b"}) for end in ("\r\n", "\n", "\r", "\0", "\x0b", "\x0c", "\x7f", "\x01")),
    ("POST", "/note", {"x-user": SMUGGLED}),
    ("POST", "/note", {f"x{SMUGGLED}": "a"}),
    *(("POST", "/note", {name: "a"}) for name in ("", "a b", "a:b", "a\r\nb", "a\tb", "a\0")),
    ("POST", "/note", {"x-user": " a"}), ("POST", "/note", {"x-user": "a\t"}),
    *((method, "/note", {}) for method in ("POST /delete_all HTTP/1.1\r\nx:", "PO ST", "", "GET\r\n", "POST\t", "GÉT")),
    ("POST", "/note", {"traceparent": "00\r\nx: y"}), ("POST", "/note", {"x-request-id": "a\nb"}),
    ("POST", "/note", {"cookie": "a\r\nb: c"}), ("POST", "/note", {"host": "a\r\nb: c"}),
]  # fmt: skip
TARGETS = [b"/note HTTP/1.1\r\nx: y", b"/no te", b"/note\r\n", b"", b"/n\xe4", b"/\0"]

Scenario = Callable[[Any], Any]
ASYNC: dict[str, Scenario] = {**BEHAVIOURS}
SYNC: dict[str, Scenario] = {}


def scenario(function: Any) -> Any:
    """A scenario: a coroutine function has the asynchronous client, another one the plain one."""
    name = function.__name__.removesuffix("_")
    (ASYNC if asyncio.iscoroutinefunction(function) else SYNC)[name] = function
    return function


def failure(exc: BaseException) -> list[str]:
    return [type(exc).__name__, str(exc)]


@scenario
async def head(http: httpx.AsyncClient) -> Any:
    answers = [await http.head("/livez"), await http.head("/note"), await http.head("/nothing")]
    return [[a.status_code, a.text, int(a.headers["content-length"]) > 0] for a in answers]


@scenario
def head_(http: httpx.Client) -> Any:
    answers = [http.head("/livez"), http.head("/note"), http.head("/nothing")]
    return [[a.status_code, a.text, int(a.headers["content-length"]) > 0] for a in answers]


METHODS = ("GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "FOO")


@scenario
async def methods(http: httpx.AsyncClient) -> Any:
    return [
        [(await http.request(m, path)).status_code for m in METHODS]
        for path in ("/note", "/livez", "/x")
    ]


@scenario
def methods_(http: httpx.Client) -> Any:
    return [
        [http.request(m, path).status_code for m in METHODS] for path in ("/note", "/livez", "/x")
    ]


@scenario
async def hostile(http: httpx.AsyncClient) -> Any:
    seen = []
    for method, path, headers in HOSTILE:
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        try:
            await http.request(method, path, headers=raw, json={"word": "x"})
            seen.append(f"sent: {method!r} {headers}")
        except httpx.LocalProtocolError:
            pass
    for target in TARGETS:
        try:
            await http.post("/note", json={"word": "x"}, extensions={"target": target})
            seen.append(f"sent: {target!r}")
        except httpx.LocalProtocolError:
            pass
    return [seen, (await http.post("/note", json={"word": "end"})).json()[-1:]]


@scenario
def hostile_(http: httpx.Client) -> Any:
    seen = []
    for method, path, headers in HOSTILE:
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        try:
            http.request(method, path, headers=raw, json={"word": "x"})
            seen.append(f"sent: {method!r} {headers}")
        except httpx.LocalProtocolError:
            pass
    for target in TARGETS:
        try:
            http.post("/note", json={"word": "x"}, extensions={"target": target})
            seen.append(f"sent: {target!r}")
        except httpx.LocalProtocolError:
            pass
    return [seen, http.post("/note", json={"word": "end"}).json()[-1:]]


@scenario
async def internal_headers(http: httpx.AsyncClient) -> Any:
    """What one hop says to the next is not for a request to say, also when it passes on all that it
    was sent.
    """
    headers = {
        "x-graphserve-deadline": "1",
        "x-graphserve-public": "1",
        "upgrade": "h2c",
        "connection": "upgrade",
    }
    return (await http.post("/total", json={"xs": [1, 2]}, headers=headers)).json()


@scenario
async def streams_down(http: httpx.AsyncClient) -> Any:
    async with http.stream("POST", "/items", json={"n": 3}) as answer:
        lines = [line async for line in answer.aiter_lines()]
    async with http.stream("POST", "/endless", json={}) as answer:
        first = await anext(answer.aiter_lines())
    return [answer.status_code, lines, first]


@scenario
def streams_down_(http: httpx.Client) -> Any:
    with http.stream("POST", "/items", json={"n": 3}) as answer:
        lines = list(answer.iter_lines())
    with http.stream("POST", "/endless", json={}) as answer:
        first = next(answer.iter_lines())
    return [answer.status_code, lines, first]


@scenario
async def streams_both_ways(http: httpx.AsyncClient) -> Any:
    """The second piece goes out when the answer to the first is here."""
    came, asked = asyncio.Event(), 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal asked
        yield b"abc"
        await came.wait()
        yield b"defgh"

    found = []
    async with http.stream("POST", "/echo", content=body()) as answer:
        async for line in answer.aiter_lines():
            came.set()
            found.append(int(line))
    return found


@scenario
def streams_both_ways_(http: httpx.Client) -> Any:
    with http.stream("POST", "/echo", content=iter([b"abc", b"defgh"])) as answer:
        return sum(int(line) for line in answer.iter_lines())


@scenario
async def uploads(http: httpx.AsyncClient) -> Any:
    def told() -> AsyncIterator[bytes]:
        return as_json()

    async def as_json() -> AsyncIterator[bytes]:
        yield b'{"xs": [1,'
        yield b" 2, 3]}"

    answers = [
        await http.post("/size", content=pieces()),
        await http.post("/size", content=b"whole"),
        await http.post("/total", content=told(), headers={"content-type": "application/json"}),
        await http.post("/size", files={"file": b"in parts"}),
    ]
    return [answer.json() if answer.status_code == 200 and answer.json() < 10**7 else answer.status_code
            for answer in answers[:3]]  # fmt: skip


@scenario
def uploads_(http: httpx.Client) -> Any:
    answers = [
        http.post("/size", content=pieces_in_thread()),
        http.post("/size", content=b"whole"),
        http.post(
            "/total",
            content=iter([b'{"xs": [1,', b" 2, 3]}"]),
            headers={"content-type": "application/json"},
        ),
    ]
    return [answer.json() for answer in answers]


@scenario
async def upload_that_raises(http: httpx.AsyncClient) -> Any:
    async def body() -> AsyncIterator[bytes]:
        yield b"x"
        raise KeyError("mine")

    try:
        return (await http.post("/size", content=body())).text
    except KeyError as exc:
        return failure(exc)


@scenario
def upload_that_raises_(http: httpx.Client) -> Any:
    def body() -> Iterator[bytes]:
        yield b"x"
        raise KeyError("mine")

    try:
        return http.post("/size", content=body()).text
    except KeyError as exc:
        return failure(exc)


@scenario
async def stream_that_breaks(http: httpx.AsyncClient) -> Any:
    seen = []
    try:
        async with http.stream("POST", "/breaks", json={}) as answer:
            async for line in answer.aiter_lines():
                seen.append(line)
    except httpx.HTTPError as exc:
        return [seen[:1], "hidden" in seen[-1], type(exc).__name__]
    return seen


@scenario
def stream_that_breaks_(http: httpx.Client) -> Any:
    seen = []
    try:
        with http.stream("POST", "/breaks", json={}) as answer:
            seen += answer.iter_lines()
    except httpx.HTTPError as exc:
        return [seen[:1], "hidden" in seen[-1], type(exc).__name__]
    return seen


@scenario
async def stream_that_stops(http: httpx.AsyncClient) -> Any:
    try:
        async with http.stream("POST", "/endless", json={}, timeout=0.3) as answer:
            return [line async for line in answer.aiter_lines()]
    except httpx.HTTPError as exc:
        return type(exc).__name__


@scenario
def stream_that_stops_(http: httpx.Client) -> Any:
    try:
        with http.stream("POST", "/endless", json={}, timeout=0.3) as answer:
            return list(answer.iter_lines())
    except httpx.HTTPError as exc:
        return type(exc).__name__


@scenario
async def timeouts(http: httpx.AsyncClient) -> Any:
    """Of an async API and of a sync one, each of which waits for a deeper node; then of the node's
    own.
    """
    seen = []
    for path in ("/sleep", "/block"):
        try:
            seen.append((await http.post(path, json={"seconds": 30}, timeout=0.2)).status_code)
        except httpx.TimeoutException as exc:
            seen.append(type(exc).__name__)
    return [*seen, (await http.post("/hasty", json={}, timeout=20)).status_code]


@scenario
def timeouts_(http: httpx.Client) -> Any:
    seen: list[Any] = []
    for path in ("/sleep", "/block"):
        try:
            seen.append(http.post(path, json={"seconds": 30}, timeout=0.2).status_code)
        except httpx.TimeoutException as exc:
            seen.append(type(exc).__name__)
    return [*seen, http.post("/hasty", json={}, timeout=20).status_code]


@scenario
async def cookies(http: httpx.AsyncClient) -> Any:
    body = {"status": 418, "headers": {"set-cookie": "a=b"}}
    await http.post("/answer", json=body)
    sent = (await http.post("/total", json={"xs": []})).request.headers.get("cookie")
    http.cookies.clear()
    return [sent, (await http.get("/livez")).request.headers.get("cookie")]


@scenario
def cookies_(http: httpx.Client) -> Any:
    body = {"status": 418, "headers": {"set-cookie": "a=b"}}
    http.post("/answer", json=body)
    sent = http.post("/total", json={"xs": []}).request.headers.get("cookie")
    http.cookies.clear()
    return [sent, http.get("/livez").request.headers.get("cookie")]


@scenario
async def hooks_and_auth(http: httpx.AsyncClient) -> Any:
    seen: list[str] = []

    async def on_request(request: httpx.Request) -> None:
        seen.append(
            f"{request.method} {request.url.path} {request.headers.get('authorization', '')[:6]}"
        )

    async def on_response(response: httpx.Response) -> None:
        await response.aread()
        seen.append(f"{response.status_code} {len(response.content) > 0}")

    http.event_hooks = {"request": [on_request], "response": [on_response]}
    try:
        challenge = {"www-authenticate": 'Digest realm="r", nonce="n", qop="auth", algorithm=MD5'}
        body = {"status": 401, "headers": challenge}
        await http.post("/answer", json=body, auth=httpx.DigestAuth("user", "password"))
        await http.get("livez", auth=("user", "password"), params={"q": "a b&c"})
    finally:
        http.event_hooks = {}
    return seen


@scenario
def hooks_and_auth_(http: httpx.Client) -> Any:
    seen: list[str] = []

    def on_request(request: httpx.Request) -> None:
        seen.append(
            f"{request.method} {request.url.path} {request.headers.get('authorization', '')[:6]}"
        )

    def on_response(response: httpx.Response) -> None:
        response.read()
        seen.append(f"{response.status_code} {len(response.content) > 0}")

    http.event_hooks = {"request": [on_request], "response": [on_response]}
    try:
        challenge = {"www-authenticate": 'Digest realm="r", nonce="n", qop="auth", algorithm=MD5'}
        body = {"status": 401, "headers": challenge}
        http.post("/answer", json=body, auth=httpx.DigestAuth("user", "password"))
        http.get("livez", auth=("user", "password"), params={"q": "a b&c"})
    finally:
        http.event_hooks = {}
    return seen


@scenario
async def other_hosts(http: httpx.AsyncClient) -> Any:
    seen: list[Any] = [(await http.get(f"{http.base_url}/livez")).status_code]
    for url in ("http://elsewhere.example/livez", f"https://{http.base_url.host}/livez"):
        try:
            seen.append((await http.get(url)).status_code)
        except httpx.UnsupportedProtocol as exc:
            seen.append(type(exc).__name__)
    return seen


@scenario
def in_a_loop_of_its_own(http: httpx.AsyncClient) -> Any:
    """An asynchronous client in a plain API, which makes a loop for it."""

    async def ask() -> list[Any]:
        async with http.stream("POST", "/items", json={"n": 2}) as answer:
            lines = [line async for line in answer.aiter_lines()]
        return [lines, (await http.post("/size", content=pieces())).json()]

    return asyncio.run(ask())


TRACES = ("trace", "trace_in_thread", "trace_in_batch", "trace_of_items", "trace_of_upload")


class Asks:
    """What runs the scenarios."""

    http: Any
    sync_http: Any
    back: Any

    @api
    async def run(self, name: str) -> Any:
        return await ASYNC[name](self.http)

    @api
    def run_in_thread(self, name: str) -> Any:
        client = self.http if name == "in_a_loop_of_its_own" else self.sync_http
        return SYNC[name](client)

    @api
    async def traces(self) -> dict[str, Any]:
        """What arrives at the node and below it, by every kind of call."""
        back = self.back
        upload = await back.trace_of_upload(pieces())
        return {
            "own": [graphserve.trace_context()],
            "trace": await back.trace(),
            "trace_in_thread": await back.trace_in_thread(),
            "trace_in_batch": (await back.trace_in_batch([1]))[0],
            "trace_of_items": [item async for item in back.trace_of_items()][0],  # noqa: RUF015
            "trace_of_upload": upload,
            "httpx": (await self.http.post("/trace", json={})).json(),
        }

    @api
    def traces_in_thread(self) -> dict[str, Any]:
        return {
            "typed": self.back.trace().result(),
            "httpx": self.sync_http.post("/trace", json={}).json(),
        }

    @api
    async def trace_set_by_hand(self, headers: dict[str, str]) -> list[Any]:
        return [
            (await self.http.post("/trace", json={}, headers=headers)).json(),
            await asyncio.to_thread(
                lambda: self.sync_http.post("/trace", json={}, headers=headers).json()
            ),
        ]

    @api
    async def spans(self) -> Any:
        return await self.back.spans()

    @api
    async def late(self, how: str, path: str) -> Any:
        """Lets the error pass: the answer names who held the call."""
        if how == "typed":
            return await getattr(self.back, path)(seconds=30.0)
        return (await self.http.post(f"/{path}", json={"seconds": 30.0})).json()

    @api
    def late_in_thread(self, how: str, path: str) -> Any:
        if how == "typed":
            return getattr(self.back, path)(seconds=30.0).result()
        return self.sync_http.post(f"/{path}", json={"seconds": 30.0}).json()

    @api
    async def named(self, path: str) -> str:
        try:
            await getattr(self.back, path)(seconds=30.0)
        except graphserve.DeadlineExceeded as exc:
            return str(exc.node)
        return ""

    @api
    def named_in_thread(self, path: str) -> str:
        try:
            getattr(self.back, path)(seconds=30.0).result()
        except graphserve.DeadlineExceeded as exc:
            return str(exc.node)
        return ""


@service(name="Front")
class Beside(Asks):
    back = depends(Back, timeout=0.5)
    http = depends(Back, client=httpx.AsyncClient)
    sync_http = depends(Back, client=httpx.Client)


@service(name="Front")
class Apart(Asks):
    back = depends(Back, url=URL, timeout=0.5)
    http = depends(Back, url=URL, client=httpx.AsyncClient)
    sync_http = depends(Back, url=URL, client=httpx.Client)
