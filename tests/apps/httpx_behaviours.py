"""What httpx documents of its clients, as scenarios: each takes a client that is bound to `Back` of
`tests.apps.clients` and gives plain values, the same for a client of httpx's own over TCP.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from typing import Any

import httpx

BEHAVIOURS: dict[str, Callable[[httpx.AsyncClient], Awaitable[Any]]] = {}


def behaviour(
    function: Callable[[httpx.AsyncClient], Awaitable[Any]],
) -> Callable[[httpx.AsyncClient], Awaitable[Any]]:
    BEHAVIOURS[function.__name__] = function
    return function


async def raised(work: Awaitable[object]) -> str:
    try:
        await work
    except Exception as exc:
        return type(exc).__name__
    return "nothing"


@behaviour
async def what_a_response_says(http: httpx.AsyncClient) -> Any:
    found = []
    for answer in (
        await http.get("/livez"),
        await http.post("/total", json={"xs": "no"}),
        await http.get("/nothing"),
    ):
        found.append([
            answer.status_code, answer.reason_phrase, answer.http_version, answer.is_success, answer.is_client_error,
            answer.request.method, answer.url.path, answer.encoding, answer.headers["Content-Type"], answer.is_closed,
            answer.is_stream_consumed, answer.elapsed.total_seconds() >= 0, answer.num_bytes_downloaded == len(answer.content),
            answer.history, answer.next_request, sorted(set(answer.extensions) - {"network_stream"}),
        ])  # fmt: skip
    return found


@behaviour
async def a_status_is_raised_when_asked(http: httpx.AsyncClient) -> Any:
    answer = await http.post("/answer", json={"status": 418, "headers": {}})
    try:
        answer.raise_for_status()
    except httpx.HTTPStatusError as exc:
        return [exc.response.status_code, exc.request.url.path]


@behaviour
async def a_stream_is_read_once(http: httpx.AsyncClient) -> Any:
    seen: list[Any] = []
    async with http.stream("POST", "/items", json={"n": 2}) as answer:
        try:
            seen.append(answer.text)
        except httpx.ResponseNotRead as exc:
            seen.append(type(exc).__name__)
        seen += [answer.is_closed, answer.is_stream_consumed]
        seen.append(b"".join([chunk async for chunk in answer.aiter_raw()]).decode())
        seen += [answer.num_bytes_downloaded, answer.is_stream_consumed]
        seen.append(await raised(anext(answer.aiter_raw())))
    seen.append(answer.is_closed)
    async with http.stream("POST", "/items", json={"n": 2}) as answer:
        seen.append((await answer.aread()).decode())
        seen.append(answer.text)
        seen.append([chunk async for chunk in answer.aiter_text()])
    async with http.stream("POST", "/items", json={"n": 2}) as answer:
        pass
    seen.append(await raised(anext(answer.aiter_raw())))
    async with http.stream("POST", "/items", json={"n": 3}) as answer:
        seen.append([chunk.decode() async for chunk in answer.aiter_bytes(chunk_size=4)])
    return seen


@behaviour
async def client_and_request_are_merged(http: httpx.AsyncClient) -> Any:
    http.params = httpx.QueryParams({"a": "1"})
    http.headers["x-own"] = "client"
    http.cookies.set("c", "1")
    try:
        answer = await http.get(
            "seen", params={"b": "2 &"}, headers={"X-Own": "request", "x-more": "more"}
        )
        said = answer.json()
        request = http.build_request("GET", "/seen", cookies={"d": "2"})
        built = (await http.send(request)).json()
    finally:
        http.params = httpx.QueryParams()
        del http.headers["x-own"]
        http.cookies.clear()
    wanted = ("x-own", "x-more", "cookie", "accept", "accept-encoding", "user-agent")
    return [
        said["query"],
        {name: said["headers"].get(name) for name in wanted[:4]},
        all(name in said["headers"] for name in wanted),
        built["headers"]["cookie"],
    ]


@behaviour
async def bodies_say_what_they_are(http: httpx.AsyncClient) -> Any:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"in "
        yield b"pieces"

    kinds: list[dict[str, Any]] = [
        {"content": b"bytes"},
        {"content": "text"},
        {"content": b""},
        {"json": {"a": [1, "é"]}},
        {"content": pieces()},
        {"content": pieces(), "headers": {"content-length": "9"}},
        {"data": {"a": ["1", "2"], "b": "é"}},
    ]
    found = []
    for kind in kinds:
        headers = {"content-type": "application/octet-stream"} if "content" in kind else {}
        answer = await http.post("/raw", **kind | {"headers": headers | kind.get("headers", {})})
        found.append(answer.json() if answer.status_code == 200 else answer.status_code)
    return found


@behaviour
async def redirects_are_followed_when_asked(http: httpx.AsyncClient) -> Any:
    there = {"status": 307, "location": "/total"}
    answer = await http.post("/leads", json=there)
    seen: list[Any] = [answer.status_code, answer.is_redirect, answer.has_redirect_location]
    assert answer.next_request is not None
    seen += [answer.next_request.method, answer.next_request.url.path]
    answer = await http.post(
        "/leads", json={"status": 303, "location": "/livez"}, follow_redirects=True
    )
    seen += [
        answer.status_code,
        answer.request.method,
        [each.status_code for each in answer.history],
    ]
    answer = await http.get("/loops", follow_redirects=False)
    seen.append(answer.status_code)
    seen.append(await raised(http.get("/loops", follow_redirects=True)))

    async def body() -> AsyncIterator[bytes]:
        yield b'{"status": 307, "location": "/leads"}'

    headers = {"content-type": "application/json"}
    seen.append(
        await raised(http.post("/leads", content=body(), headers=headers, follow_redirects=True))
    )
    return seen


class Twice(httpx.Auth):
    """Asks again with what the answer says."""

    requires_response_body = True

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        response = yield request
        request.headers["x-own"] = f"{response.status_code} {response.json()['query']}"
        yield request


@behaviour
async def auth_may_ask_again(http: httpx.AsyncClient) -> Any:
    twice = (await http.get("/seen?q=1", auth=Twice())).json()["headers"]["x-own"]
    basic = (await http.get("/seen", auth=("user", "pass"))).json()["headers"]["authorization"]

    def sign(request: httpx.Request) -> httpx.Request:
        request.headers["x-own"] = request.url.path
        return request

    return [twice, basic, (await http.get("/seen", auth=sign)).json()["headers"]["x-own"]]


@behaviour
async def hooks_may_raise(http: httpx.AsyncClient) -> Any:
    async def check(response: httpx.Response) -> None:
        response.raise_for_status()

    http.event_hooks = {"response": [check]}
    try:
        return [await raised(http.get("/nothing")), await raised(http.get("/livez"))]
    finally:
        http.event_hooks = {}


@behaviour
async def a_request_may_be_cancelled(http: httpx.AsyncClient) -> Any:
    async def ask() -> None:
        async with asyncio.timeout(0.1):
            await http.post("/sleep", json={"seconds": 30})

    seen: list[Any] = [await raised(ask())]
    answers = await asyncio.gather(*(http.post("/total", json={"xs": [n, 1]}) for n in range(30)))
    return [*seen, [answer.json() for answer in answers] == list(range(1, 31))]


@behaviour
async def urls_are_joined(http: httpx.AsyncClient) -> Any:
    found = []
    for url in (
        "seen",
        "/seen",
        "/seen?a=b%20c&a=d",
        "/./seen",
        "/x/../seen",
        "/s%65en",
        "/seen#part",
        "/seen?a=é",
    ):
        answer = await http.get(url)
        found.append([answer.status_code, answer.json().get("query")])
    return found


@behaviour
async def mistakes_are_raised_before_anything_is_sent(http: httpx.AsyncClient) -> Any:
    return [
        await raised(http.get("ftp://x/y")),
        await raised(http.get("//[")),
        await raised(http.post("/total", json={1, 2})),
        await raised(http.post("/total", content=iter([b"a"]))),
        await raised(http.get("/livez", params=5)),  # type: ignore[arg-type]
    ]
