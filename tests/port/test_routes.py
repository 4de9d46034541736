"""Methods, paths and queries at the public port: what finds which API, and what it takes out of a
URL; by name over a hop, in one process, and by a URL.
"""

from __future__ import annotations

import asyncio
import datetime
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import msgspec
import pytest

import graphserve
from graphserve import api, depends, service
from tests.apps import routes
from tests.apps.routes import BELOW, BY_HTTPX, Front, Item, Shop
from tests.harness import APPS, Served, eventually, served

ROOT = APPS.parent.parent
JSON = {"content-type": "application/json"}
EVENTS = {"accept": "text/event-stream"}


@pytest.fixture(scope="module")
def graph() -> Iterator[Served]:
    with served("tests.apps.routes:Front", "--access-log", cwd=ROOT) as graph:
        yield graph


@pytest.fixture
def client(graph: Served) -> Iterator[httpx.Client]:
    with graph.client() as client:
        yield client


DEFAULTS = [10, False, None, [], "red", "up"]
SCORES = {
    # path and query, the arguments
    "/users/ann/scores": ["ann", *DEFAULTS],
    "/users/5/scores": ["5", *DEFAULTS],
    "/users/a%2Fb/scores": ["a/b", *DEFAULTS],
    "/users/a+b%20c/scores": ["a+b c", *DEFAULTS],
    "/users/%C3%A9&=/scores": ["é&=", *DEFAULTS],
    "/users/%7Bx%7D/scores": ["{x}", *DEFAULTS],
    "/users/.../scores": ["...", *DEFAULTS],
    "/%75sers/a/scores": ["a", *DEFAULTS],
    "/users/a/scores?": ["a", *DEFAULTS],
    "/users/a/scores?&limit=3&": ["a", 3, *DEFAULTS[1:]],
    "/users/a/scores?limit=007&all=1": ["a", 7, True, *DEFAULTS[2:]],
    "/users/a/scores?limit=-2&all=False": ["a", -2, False, *DEFAULTS[2:]],
    "/users/a/scores?all=on&since=2024-01-02": ["a", 10, True, "2024-01-02", [], "red", "up"],
    "/users/a/scores?tags=1": ["a", 10, False, None, ["1"], "red", "up"],
    "/users/a/scores?tags=1&tags=&tags=a+b%2B": ["a", 10, False, None, ["1", "", "a b+"], "red", "up"],
    "/users/a/scores?tags=%5B%22x%22%5D": ["a", 10, False, None, ["x"], "red", "up"],
    "/users/a/scores?tags=%5Bx": ["a", 10, False, None, ["[x"], "red", "up"],
    "/users/a/scores?color=5&order=1": ["a", 10, False, None, [], "5", 1],
}  # fmt: skip


@pytest.mark.parametrize("url", SCORES)
def test_a_url_says_the_arguments(client: httpx.Client, url: str) -> None:
    answer = client.get(url)
    assert (answer.status_code, answer.json()) == (200, SCORES[url])
    head = client.head(url)
    assert head.status_code == 200 and not head.content
    assert head.headers["content-length"] == answer.headers["content-length"]


WRONG = {
    # path and query: where, and what is said
    "/users/a/scores?limit=x": (["query", "limit"], "Expected `int`, got `str`"),
    "/users/a/scores?limit=1.5": (["query", "limit"], "Expected `int`, got `float`"),
    "/users/a/scores?limit=": (["query", "limit"], "Expected `int`, got `str`"),
    "/users/a/scores?limit=1&limit=2": (["query", "limit"], "'limit' is given twice"),
    "/users/a/scores?all=2": (["query", "all"], "Expected `bool`"),
    "/users/a/scores?since=soon": (["query", "since"], "date"),
    "/users/a/scores?color=blue": (["query", "color"], "Invalid enum value 'blue'"),
    "/users/a/scores?user=b": (["path", "user"], "'user' is given twice"),
    "/users/a/scores?limit=%ff": (["query", "limit"], "it is not UTF-8"),
    "/users/a/scores?%ff=1": (["query"], "a name is not UTF-8"),
    "/users/%ff/scores": (["path", "user"], "it is not UTF-8"),
    "/users/a/scores?limt=1": (["query", "limt"], "unexpected argument 'limt'; known are: limit, all"),
    "/either": (["query", "value"], "missing argument 'value'"),
    "/either?value=" + "[" * 4000: (["query", "value"], "Expected `int`"),
    "/either?value=" + "9" * 5000: (["query", "value"], ""),
}  # fmt: skip


@pytest.mark.parametrize("url", WRONG)
def test_what_does_not_fit_is_told(client: httpx.Client, url: str) -> None:
    where, says = WRONG[url]
    answer = client.get(url)
    assert answer.status_code == 422, answer.text
    error = answer.json()["errors"][0]
    assert error["loc"] == where
    assert says in error["msg"]


def test_as_many_strays_as_fit_in_a_url_are_not_all_told(client: httpx.Client) -> None:
    query = "&".join(f"a{number}=1" for number in range(900))
    answer = client.get(f"/either?{query}")
    assert answer.status_code == 422
    assert len(answer.content) < 8 * len(query)
    assert "more errors" in answer.json()["errors"][-1]["msg"]


NOWHERE = [
    "/users//scores", "/users/a/scores/", "/users/a/b/scores", "/users", "/users/a", "//users/a/scores",
    "/items/5/6", "/items/", "/.call/scores", "/USERS/a/scores", "/users/a%2Fscores",
]  # fmt: skip


@pytest.mark.parametrize("path", NOWHERE)
def test_other_paths_are_none(graph: Served, path: str) -> None:
    with httpx.Client() as client:  # (httpx joins a base and a path that begins with //)
        for method in ("GET", "POST"):
            assert client.request(method, graph.url + path).status_code == 404


ALLOWED = {
    "/items/5": "DELETE, PATCH, PUT",
    "/items/best": "DELETE, GET, HEAD, PATCH, PUT",
    "/users/a/scores": "GET, HEAD",
    "/either": "GET, HEAD, POST",
    "/items/5/photo": "POST",
    "/": "GET, HEAD",
    "/livez": "GET, HEAD",
    "*": "DELETE, GET, HEAD, PATCH, POST, PUT",
}


@pytest.mark.parametrize("path", ALLOWED)
def test_other_methods_are_told_which_there_are(client: httpx.Client, path: str) -> None:
    if path != "*":
        used = next(each for each in ("POST", "GET", "PATCH") if each not in ALLOWED[path])
        answer = client.request(used, path)
        assert answer.status_code == 405
        assert answer.headers["allow"] == ALLOWED[path]
        assert answer.json()["detail"] == f"{path} takes {ALLOWED[path]}, not {used}"
    answer = client.request("OPTIONS", "/", extensions={"target": path.encode()})
    assert (answer.status_code, answer.headers["allow"]) == (204, ALLOWED[path])


ITEM = {"name": "a", "prices": [1.0]}


def test_a_path_may_have_several_methods(client: httpx.Client) -> None:
    assert client.put("/items/5", json=ITEM).json() == [5, ITEM, False]
    assert client.put("/items/5?dry=true", json=ITEM).json() == [5, ITEM, True]
    packed = msgspec.msgpack.encode(ITEM)
    answer = client.put("/items/5", content=packed, headers={"content-type": "application/msgpack"})
    assert answer.json() == [5, ITEM, False]
    assert client.patch("/items/5", json={"name": "b"}).json() == [5, "b"]
    assert client.delete("/items/5").json() == 5
    assert client.get("/items/best").json() == "the best"
    assert client.get("/either?value=3").json() == 3
    assert client.post("/either", json={"value": 3}).json() == 3
    image = {"content-type": "image/png"}
    assert client.post("/items/5/photo", content=b"abc", headers=image).json() == [5, 3, 0]
    assert client.post("/items/5/photo?turns=2", content=b"abc", headers=image).json() == [5, 3, 2]
    assert client.post("/items/5/photo", json={"data": "YWJj", "turns": 1}).json() == [5, 3, 1]
    form = client.post("/items/5/photo", files={"data": b"abc"}, data={"turns": "3"})
    assert form.json() == [5, 3, 3]
    assert client.post("/items/5/photo?turns=3", files={"data": b"abc"}).status_code == 422
    assert client.post("/items/5/photo?turns=x", content=b"a", headers=image).status_code == 422
    assert client.put("/items/5", files={"item": b"{}"}).status_code == 415
    assert client.put(
        "/files/a%22b?times=2", content=b"abc", headers={"content-type": "a/b"}
    ).json() == ['a"b', 6]


BODIES = [
    # method, path, body, status, what is said
    ("PUT", "/items/5", b'{"name": "a"}', 422, "item.prices: Object missing required field"),
    ("PUT", "/items/5", b'{"name": 1, "prices": []}', 422, "item.name: Expected `str`, got `int`"),
    ("PUT", "/items/5", b'{"name": "a", "prices": ["1"]}', 422, "item.prices"),
    ("PUT", "/items/5", b"", 422, "missing argument 'item': it is the body"),
    ("PUT", "/items/5", b"{", 400, "not valid JSON"),
    ("PUT", "/items/5", b'1, "number": 6', 400, "not valid JSON"),
    ("PUT", "/items/5", b'1}, {"a": 6', 400, "not valid JSON"),
    ("PUT", "/items/x", b'{"name": "a", "prices": []}', 422, "path.number: Expected `int`, got `str`"),
    ("PATCH", "/items/5", b'{"name": "b", "number": 6}', 422, "unexpected argument 'number'"),
    ("PATCH", "/items/5?name=b", b'{"name": "a"}', 422, "query.name: unexpected argument 'name'; there are none"),
    ("PATCH", "/items/5", b"{", 400, "not valid JSON"),
    ("POST", "/either?value=5", b"{}", 422, "/either reads no query"),
    ("POST", "/either", b'{"value": "5"}', 422, "value: Expected `int`, got `str`"),
    ("GET", "/either?value=5", b"{}", 422, "GET /either takes no body"),
    ("DELETE", "/items/5", b"{}", 422, "DELETE /items/{number} takes no body"),
    ("HEAD", "/either?value=5", b"{}", 422, ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "says"), BODIES, ids=[f"{m} {p} {b!r}" for m, p, b, *_ in BODIES]
)  # fmt: skip
def test_bodies_stay_strict(
    client: httpx.Client, method: str, path: str, body: bytes, status: int, says: str
) -> None:
    answer = client.request(method, path, content=body, headers=JSON)
    assert answer.status_code == status, answer.text
    if method != "HEAD":
        assert says in answer.json()["detail"]


def test_chunks_of_a_body_that_nobody_reads_are_told(client: httpx.Client) -> None:
    answer = client.request("GET", "/either?value=5", content=iter([b"{", b"}"]), headers=JSON)
    assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (422, ["body"])


def test_a_body_says_what_it_is_by_other_methods_too(client: httpx.Client) -> None:
    assert client.put("/items/5", content=b"{}").status_code == 415
    inner = b"GET application/json\nvalue=5\n"
    kind = {"content-type": "application/vnd.graphserve.by-url"}
    for path in ("/either", "/items/5/photo", "/items/5"):
        answer = client.request(
            "PUT" if path == "/items/5" else "POST", path, content=inner, headers=kind
        )
        if path == "/items/5/photo":  # it takes any type, as it is
            assert answer.json() == [5, len(inner), 0]
        else:
            assert answer.status_code == 415


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"origin": "https://example.org"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
    ],
)
def test_pages_of_other_sites_call_by_no_method(
    client: httpx.Client, headers: dict[str, str], status: int
) -> None:
    assert client.get("/either?value=5", headers=headers).status_code == status
    assert client.delete("/items/5", headers=headers).status_code == status


def test_an_error_of_head_has_no_body(client: httpx.Client) -> None:
    got = client.get("/refuses?status=418")
    head = client.head("/refuses?status=418")
    assert (got.status_code, head.status_code, head.content) == (418, 418, b"")
    assert client.head("/either?value=x").status_code == 422
    assert client.get("/either?value=5").json() == 5  # by the same connection


def test_the_access_log_has_method_and_path(graph: Served, client: httpx.Client) -> None:
    client.get("/users/a%2Fb/scores?limit=1")
    graph.wait_log(r"GET /users/a%2Fb/scores 200")
    client.head("/items/best")
    graph.wait_log(r"HEAD /items/best 200")


def test_docs_and_health_are_where_they_were(client: httpx.Client) -> None:
    for path in ("/docs", "/openapi.json", "/livez", "/readyz"):
        assert client.get(path).status_code == 200


# --- events ---


def events(text: str) -> list[dict[str, str]]:
    """The events of a stream."""
    return [
        dict(
            line.split(": ", 1) if ": " in line else (line.rstrip(":"), "")
            for line in block.split("\n")
        )
        for block in text.split("\n\n")[:-1]
    ]


def test_an_event_source_goes_on_where_it_was(client: httpx.Client) -> None:
    answer = client.get("/numbers?to=2", headers=EVENTS)
    assert answer.headers["content-type"] == "text/event-stream"
    assert events(answer.text) == [
        {"id": "1", "data": "1"},
        {"id": "2", "data": "2"},
        {"event": "end", "data": ""},
    ]
    # a browser asks with the same URL again
    again = client.get("/numbers?to=4&last_event_id=1", headers=EVENTS | {"last-event-id": "3"})
    assert events(again.text)[0] == {"id": "4", "data": "4"}
    assert client.get("/numbers?to=3&last_event_id=2").text == "3\n"
    assert client.get("/numbers?to=3", headers=EVENTS | {"last-event-id": "x"}).status_code == 422


def test_an_event_source_is_told_what_broke(client: httpx.Client) -> None:
    first, last = events(client.get("/breaks", headers=EVENTS).text)
    assert first == {"id": "1", "data": "1"}
    assert last["event"] == "error"
    assert msgspec.json.decode(last["data"])["status"] == 409
    missing = client.get("/numbers", headers=EVENTS)
    assert missing.status_code == 422  # before it began, it is an ordinary answer


def test_head_of_a_stream_makes_none(client: httpx.Client) -> None:
    answer = client.head("/numbers?to=1000000000", headers=EVENTS)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream")
    assert not answer.content


# --- other ways ---


def test_a_hop_calls_by_name(client: httpx.Client) -> None:
    assert client.get("/").json() == BELOW


def test_an_injected_client_finds_the_routes(client: httpx.Client) -> None:
    assert client.get("/by_httpx").json() == BY_HTTPX


def test_the_same_in_one_process() -> None:
    below, by_httpx = asyncio.run(routes.in_one_process())
    assert msgspec.to_builtins(below) == BELOW
    assert by_httpx == BY_HTTPX


def test_a_busy_worker_passes_them_on(tmp_path: Path) -> None:
    """The answers come, whichever worker of two the connection is at: one of them is held."""
    gate = tmp_path / "gate"
    with served("tests.apps.routes:Busy", cwd=ROOT) as graph:
        hold = {"gate": str(gate)}
        holder = threading.Thread(target=lambda: graph.client().post("/hold", json=hold))
        holder.start()
        try:
            eventually(Path(f"{gate}.begun").exists)
            for _ in range(12):  # some of these connections are at the worker that is busy
                with graph.client() as client:
                    asked = client.get("/asked/a%2Fb?times=2")
                    assert asked.json() == ["a/b", 2, "GET", "/asked/a/b"]
                    head = client.head("/asked/a%2Fb?times=2")
                    assert (head.status_code, head.content) == (200, b"")
                    assert client.get("/asked/a?times=x").status_code == 422
                    assert client.put("/items/5", json=ITEM).json() == [5, ITEM]
                    assert client.put("/items/5", content=b"{", headers=JSON).status_code == 400
                    told = client.get("/numbers?to=2", headers=EVENTS | {"last-event-id": "1"})
                    assert events(told.text)[0] == {"id": "2", "data": "2"}
        finally:
            gate.touch()
            holder.join()


def test_a_prefix_that_a_proxy_leaves() -> None:
    with (
        served("tests.apps.routes:Shop", "--root-path", "/shop", cwd=ROOT) as graph,
        graph.client() as client,
    ):
        for prefix in ("", "/shop"):
            assert client.get(f"{prefix}/either?value=5").json() == 5
            assert client.get(f"{prefix}/users/a/scores").json()[0] == "a"
            assert client.post(f"{prefix}/items/5").headers["allow"] == "DELETE, PATCH, PUT"


TEXTS = ["a", "a/b", "é", "5", "true", "null", "[", '"q"', "a+b&c=d", "...", " "]


def test_a_program_calls_what_it_serves(graph: Served) -> None:
    async def calls(url: str) -> None:
        @service
        class Away:
            shop = depends(Shop, url=url)

            @api
            async def all(self) -> list[object]:
                async def chunks() -> AsyncIterator[bytes]:
                    yield b"abc"

                shop = self.shop
                for text in TEXTS:
                    said = await shop.scores(text, tags=[text], since=None)
                    assert said[0] == text and said[4] == [text]
                    assert (await shop.upload(text, chunks()))[0] == text
                return [
                    await shop.scores("a/b", limit=3, tags=["x"], since=datetime.date(2024, 1, 2)),
                    await shop.put(5, Item("a", [1.5]), dry=True),
                    await shop.delete(6),
                    await shop.rename(7, "b"),
                    await shop.photo(8, b"abc"),
                    await shop.either(9),
                    [number async for number in shop.numbers(3)],
                    await shop.upload('"q"', chunks(), times=2),
                ]

            @api
            async def up(self, step: str) -> str:
                try:
                    await self.shop.scores(step)
                except graphserve.GraphServeError as exc:
                    return str(exc)
                return ""

        async with graphserve.local(Away) as away:
            assert msgspec.to_builtins(await away.all()) == BELOW
            for step in ("..", ".", ""):
                assert "cannot be a part of a path" in await away.up(step)

    asyncio.run(calls(graph.url))


def test_a_parent_calls_its_entry() -> None:
    with graphserve.serve(Front, port=0) as server:
        assert server.call.scores("a/b", tags=[]).result()[0] == "a/b"
        assert server.call.put(5, Item("a", [])).result()[0] == 5
        with pytest.raises(graphserve.InvalidArguments, match="Expected `int`, got `str`"):
            server.call.delete("x").result()  # type: ignore[arg-type]
