"""An API says how its request is answered: at the port, where a sibling executes it, and to httpx
clients; no value becomes a header that nobody meant.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from graphserve.call.answer import MOST_BYTES, Answer, RelayedAnswer
from tests.apps import answers
from tests.call.test_three_ways import Ask, in_this_process
from tests.harness import APPS, Served, served
from tests.relaying import Post, free_or_relayed

ROOT = APPS.parent.parent
COOKIES = ['a="x\\073y"; HttpOnly; Max-Age=5; Path=/; SameSite=lax', 'b=""']
MSGPACK = {"accept": "application/msgpack"}


@pytest.fixture(scope="module")
def graph() -> Iterator[Served]:
    with served("tests.apps.answers:Top", cwd=ROOT) as graph:
        yield graph


@pytest.fixture(scope="module", params=["at once", "relayed"])
def post(
    request: pytest.FixtureRequest, graph: Served, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Post]:
    with free_or_relayed(request.param, graph, tmp_path_factory.mktemp("gate")) as post:
        yield post


@pytest.fixture(scope="module")
def local() -> Iterator[Ask]:
    with in_this_process(answers.Top) as ask:
        yield ask


def said(answer: httpx.Response) -> list[Any]:
    fields = answer.headers
    return [fields.get("x-said"), fields.get("cache-control"), fields.get_list("set-cookie")]


@pytest.mark.parametrize("status", [200, 201, 202, 206, 299, 302, 399])
def test_what_an_api_says_is_what_the_client_gets(post: Post, status: int) -> None:
    for _ in range(2):
        answer = post("/say", json={"status": status}, follow_redirects=False)
        assert answer.status_code == status and answer.json() == status
        assert said(answer) == ["caf\xe9", "max-age=5", COOKIES]
        assert answer.headers["content-type"] == "application/json"
        assert len(answer.headers.get_list("content-length")) == 1
        assert not [name for name in answer.headers if name.startswith("x-graphserve-")]


@pytest.mark.parametrize("status", [204, 205, 304])
def test_a_status_without_a_body_has_none(post: Post, status: int) -> None:
    answer = post("/say", json={"status": status})
    assert answer.status_code == status and answer.content == b""
    assert "content-type" not in answer.headers
    assert answer.headers.get("content-length") == ("0" if status == 205 else None)
    assert said(answer)[0] == "caf\xe9"
    assert post("/pid", json={}).status_code == 200, "the connection goes on"


def test_a_media_type_sends_text_and_bytes_as_they_are(post: Post) -> None:
    for kind, expected in (
        ("text/html; charset=utf-8", "<b>caf\xe9</b>".encode()), ("text/csv", "<b>caf\xe9</b>".encode()),
        ("application/ld+json", '"<b>caf\xe9</b>"'.encode()), (None, '"<b>caf\xe9</b>"'.encode()),
    ):  # fmt: skip
        answer = post("/text", json={"media_type": kind})
        assert answer.content == expected
        assert answer.headers["content-type"] == (kind or "application/json")
    answer = post("/data", json={"media_type": "image/png"})
    assert (answer.content, answer.headers["content-type"]) == (b"\x00\xff", "image/png")
    answer = post("/data", json={"media_type": "image/png"}, headers=MSGPACK)
    assert answer.headers["content-type"] == "application/msgpack", "the client asked for it"
    assert said(answer)[0] == "caf\xe9"


def test_a_media_type_that_the_result_cannot_have_is_an_error(post: Post, graph: Served) -> None:
    assert post("/say", json={"status": 200, "media_type": "text/csv"}).status_code == 500
    graph.wait_log("answer.media_type = 'text/csv' is for a result of str or bytes")


@pytest.mark.parametrize("status", [200, 201, 202, 206])
def test_a_stream_has_the_headers_and_the_status_that_were_set(post: Post, status: int) -> None:
    for count in (0, 2):
        answer = post("/items", json={"count": count, "status": status})
        assert answer.status_code == status
        lines = answer.text.splitlines()
        assert lines[:count] == [str(number) for number in range(count)]
        assert said(answer) == ["caf\xe9", "max-age=5", COOKIES]
        assert answer.headers.get_list("cache-control") == ["max-age=5"]
        assert not count or "on its way already" in lines[-1]
        for wrong in ({"status": 204}, {"status": 303}, {"media_type": "text/csv"}):
            assert post("/items", json={"count": count, **wrong}).status_code == 500


def test_a_call_that_fails_is_answered_by_its_error_alone(post: Post) -> None:
    answer = post("/fail", json={})
    assert answer.status_code == 409
    assert said(answer) == [None, None, []]


def test_each_caller_of_a_batch_has_its_own_answer(graph: Served) -> None:
    async def ask() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=graph.url) as client:
            return await asyncio.gather(
                *(client.post("/batch", json={"xs": [status] * 2}) for status in (201, 202, 203))
            )

    for answer in asyncio.run(ask()):
        assert answer.json() == [answer.status_code] * 2
        assert answer.status_code in (201, 202, 203)


def test_below_only_the_result_travels(graph: Served, local: Ask) -> None:
    with graph.client() as client:
        answer = client.post("/below", json={})
    assert answer.status_code == 200 and answer.json() == 201 == local("below")
    assert said(answer) == [None, None, []]


@pytest.mark.parametrize(
    ("api", "arguments", "status", "text"),
    [
        ("say", {"status": 201}, 201, "201"),
        ("say", {"status": 204}, 204, ""),
        ("say", {"status": 303}, 303, "303"),
        ("items", {"count": 2}, 200, "0\n1\n"),
        ("items", {"count": 0}, 200, ""),
        ("items", {"count": 2, "status": 202}, 202, "0\n1\n"),
        ("items", {"count": 0, "status": 202}, 202, ""),
    ],
)
def test_an_httpx_client_gets_the_answer_as_it_was_said(
    graph: Served, local: Ask, api: str, arguments: dict[str, int], status: int, text: str
) -> None:
    with graph.client() as client:
        answer = client.post("/below_by_httpx", json={"api": api, "arguments": arguments})
    for found in (answer.json(), local("below_by_httpx", api=api, arguments=arguments)):
        assert found == [status, text, "caf\xe9", "max-age=5", COOKIES]
    with graph.client() as client:
        wrong = {"api": "items", "arguments": {"count": arguments.get("count", 0), "status": 303}}
        assert client.post("/below_by_httpx", json=wrong).json()[0] == 500
    assert local("below_by_httpx", **wrong)[0] == 500


@pytest.mark.parametrize(
    ("part", "name", "value", "words"),
    [
        ("header", "x", "a\r\nset-cookie: b=1", "no header can have this value"),
        ("header", "x", "a\x00", "no header can have this value"),
        ("header", "x", "\u20ac", "urllib.parse.quote"),
        ("header", "x", 1, "is a text, not 1"),
        ("header", "x:y", "a", "no name of a header"),
        ("header", "x\r\n", "a", "no name of a header"),
        ("header", "", "a", "no name of a header"),
        ("header", "Content-Length", "0", "the port's"),
        ("header", "transfer-encoding", "chunked", "the port's"),
        ("header", "Connection", "x-y", "the port's"),
        ("header", "X-Graphserve-Answer", "a", "the port's"),
        ("header", "Content-Type", "text/csv", "answer.media_type"),
        ("header", "Set-Cookie", "a=1", "answer.set_cookie"),
        ("header", "X-Request-Id", "a", "the request's own"),
        ("header", "Date", "now", "the port says it"),
        ("header", "x", "a" * MOST_BYTES, f"at most {MOST_BYTES} bytes"),
        ("cookie", "value", "a" * MOST_BYTES, f"at most {MOST_BYTES} bytes"),
        ("cookie", "path", "/; domain=b.test", "no path of a cookie"),
        ("cookie", "path", "/\r\nx: y", "no path of a cookie"),
        ("cookie", "domain", "a.test\nx: y", "no domain of a cookie"),
        ("cookie", "samesite", "lax; secure", "samesite is"),
        ("cookie", "expires", "now; path=/x", "no date of a cookie"),
        ("name", "a;b", "c", "can be no cookie"),
        ("name", "a\r\nb", "c", "can be no cookie"),
        ("name", "", "c", "can be no cookie"),
        ("answer", "status", 500, "raise graphserve.Problem"),
        ("answer", "status", 199, "from 200 to 399"),
        ("answer", "status", True, "from 200 to 399"),
        ("answer", "status", "201", "from 200 to 399"),
        ("answer", "media_type", "text", "no media type"),
        ("answer", "media_type", "text/csv\r\nx: y", "no media type"),
        ("answer", "media_type", 1, "no media type"),
    ],
)  # fmt: skip
def test_what_can_be_no_part_of_an_answer_is_refused(
    local: Ask, part: str, name: str, value: Any, words: str
) -> None:
    assert words in local("refuse", part=part, name=name, value=value)


def test_a_cookie_has_line_ends_only_as_escapes() -> None:
    answer = Answer()
    try:
        answer.set_cookie("a", "b\r\nset-cookie: c=1")
    except ValueError:  # what newer Pythons say of it
        return
    assert answer.fields() == [
        (b"set-cookie", b'a="b\\015\\012set-cookie: c=1"; Path=/; SameSite=lax')
    ]


def test_cookies_expire_as_http_writes_dates() -> None:
    answer = Answer()
    answer.set_cookie("a", "1", expires=datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC), secure=True)
    ((_, line),) = answer.fields()
    assert line == b"a=1; expires=Wed, 02 Jan 2030 03:04:05 GMT; Path=/; SameSite=lax; Secure"
    with pytest.raises(ValueError, match="time zone"):
        answer.set_cookie("a", "1", expires=datetime(2030, 1, 2))


def test_headers_are_a_mapping_with_names_in_any_case() -> None:
    headers = Answer().headers
    headers["Vary"] = " accept "
    headers["vary"] = "origin"
    headers["x"] = ""
    assert dict(headers) == {"vary": "origin", "x": ""}
    del headers["VARY"]
    assert list(headers) == ["x"] and len(headers) == 1


def test_an_answer_that_is_passed_on_arrives_as_it_was() -> None:
    answer = Answer()
    answer.status = 201
    answer.headers["x"] = ""
    answer.set_cookie("a", "1")
    passed = RelayedAnswer(answer.pack(b"text/csv"))
    assert (passed.status, passed.content_type, passed.fields()) == (
        201,
        b"text/csv",
        answer.fields(),
    )
