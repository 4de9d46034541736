"""Injected httpx clients: as httpx, and the same in one process, between processes and over TCP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.apps import clients
from tests.apps.httpx_behaviours import BEHAVIOURS
from tests.call.test_three_ways import Ask, asking, in_this_process
from tests.harness import APPS, served

ROOT = APPS.parent.parent


@pytest.fixture(scope="module")
def asks() -> Iterator[dict[str, Ask]]:
    with ExitStack() as stack:
        back = stack.enter_context(served("tests.apps.clients:Back", cwd=ROOT))
        near = stack.enter_context(served("tests.apps.clients:Beside", cwd=ROOT))
        apart = stack.enter_context(
            served("tests.apps.clients:Apart", cwd=ROOT, env={"BACK_URL": back.url})
        )
        yield {
            "local": stack.enter_context(in_this_process(clients.Beside)),
            "processes": asking(stack.enter_context(near.client())),
            "elsewhere": asking(stack.enter_context(apart.client())),
            "client of back": stack.enter_context(back.client()).post,
            "client of processes": stack.enter_context(near.client()).post,
            "client of elsewhere": stack.enter_context(apart.client()).post,
        }


BOUND = ("local", "processes")
WAYS = (*BOUND, "elsewhere")
EMPTY = [200, "", True]
ANSWERS: dict[str, Any] = {
    "head": [EMPTY, [405, "", True], [404, "", True]],
    "hostile": [[], ["end"]],
    "streams_down": [200, ["0", "1", "2"], "1"],
    "stream_that_breaks": [["1"], True, "RemoteProtocolError"],
    "stream_that_stops": "ReadTimeout",
    "timeouts": ["ReadTimeout", "ReadTimeout", 504],
    "cookies": ["a=b", None],
    "hooks_and_auth": [
        "POST /answer ",
        "401 True",
        "POST /answer Digest",
        "401 True",
        "GET /livez Basic ",
        "200 True",
    ],
    "upload_that_raises": ["KeyError", "'mine'"],
}
IN_COROUTINES = ANSWERS | {
    "internal_headers": 3,
    "streams_both_ways": [3, 5],
    "uploads": [1_000_000, 5, 6],
    "other_hosts": [200, "UnsupportedProtocol", "UnsupportedProtocol"],
}
IN_THREADS = ANSWERS | {
    "streams_both_ways": 8,
    "uploads": [1_000_000, 5, 6],
    "in_a_loop_of_its_own": [["0", "1"], 1_000_000],
}


@pytest.mark.parametrize("way", BOUND)
@pytest.mark.parametrize("name", IN_COROUTINES)
def test_an_asynchronous_client(asks: dict[str, Ask], way: str, name: str) -> None:
    assert asks[way]("run", name=name) == IN_COROUTINES[name]


@pytest.mark.parametrize("way", BOUND)
@pytest.mark.parametrize("name", IN_THREADS)
def test_a_plain_client(asks: dict[str, Ask], way: str, name: str) -> None:
    assert asks[way]("run_in_thread", name=name) == IN_THREADS[name]


HTTPX: dict[str, Any] = {
    "what_a_response_says": [
        [200, "OK", "HTTP/1.1", True, False, "GET", "/livez", "utf-8", "application/json", True, True, True, True, [], None, ["http_version", "reason_phrase"]],
        [422, "Unprocessable Content", "HTTP/1.1", False, True, "POST", "/total", "utf-8", "application/problem+json", True, True, True, True, [], None, ["http_version", "reason_phrase"]],
        [404, "Not Found", "HTTP/1.1", False, True, "GET", "/nothing", "utf-8", "application/problem+json", True, True, True, True, [], None, ["http_version", "reason_phrase"]],
    ],
    "a_status_is_raised_when_asked": [418, "/answer"],
    "a_stream_is_read_once": ["ResponseNotRead", False, False, "0\n1\n", 4, True, "StreamConsumed", True, "0\n1\n", "0\n1\n", ["0\n1\n"], "StreamClosed", ["0\n1\n", "2\n"]],
    "client_and_request_are_merged": ["a=1&b=2+%26", {"x-own": "request", "x-more": "more", "cookie": "c=1", "accept": "*/*"}, True, "c=1; d=2"],
    "bodies_say_what_they_are": [["bytes", "application/octet-stream", None], ["text", "application/octet-stream", None], ["", "application/octet-stream", None], 422, ["in pieces", "application/octet-stream", None], ["in pieces", "application/octet-stream", None], 415],
    "redirects_are_followed_when_asked": [307, True, True, "POST", "/total", 200, "GET", [303], 307, "TooManyRedirects", "StreamConsumed"],
    "auth_may_ask_again": ["200 q=1", "Basic dXNlcjpwYXNz", "/seen"],
    "hooks_may_raise": ["HTTPStatusError", "nothing"],
    "a_request_may_be_cancelled": ["TimeoutError", True],
    "urls_are_joined": [[200, ""], [200, ""], [200, "a=b%20c&a=d"], [200, ""], [200, ""], [200, ""], [200, ""], [200, "a=%C3%A9"]],
    "mistakes_are_raised_before_anything_is_sent": ["UnsupportedProtocol", "nothing", "TypeError", "RuntimeError", "AttributeError"],
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", BEHAVIOURS)
def test_what_httpx_documents_holds(asks: dict[str, Ask], way: str, name: str) -> None:
    """Elsewhere it is a client of httpx's own, over TCP: the others do as that one does."""
    assert asks[way]("run", name=name) == HTTPX[name]


def test_every_method_is_answered_alike(asks: dict[str, Ask]) -> None:
    expected = asks["processes"]("run", name="methods")
    assert [row[0] for row in expected] == [405, 200, 404]
    seen = {
        f"{way} {run}": asks[way](run, name="methods")
        for way in BOUND
        for run in ("run", "run_in_thread")
    }
    assert seen == dict.fromkeys(seen, expected)


# --- what travels ---

TRACE = {
    "traceparent": f"00-{'1' * 32}-{'2' * 16}-01",
    "tracestate": "a=1,b=2",
    "baggage": "user=7,plan=x;y",
}
SENT = [("x-request-id", "mine"), ("traceparent", TRACE["traceparent"]), ("tracestate", "a=1"), ("tracestate", "b=2"),
        ("baggage", TRACE["baggage"])]  # fmt: skip
ARRIVES = TRACE | {"x-request-id": "mine"}


def ask_with(
    asks: dict[str, Ask], way: str, api: str, sent: list[tuple[str, str]], /, **arguments: Any
) -> Any:
    answer = asks[f"client of {way}"](f"/{api}", json=arguments, headers=sent)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("way", ["processes", "elsewhere"])
def test_what_travels_travels_by_every_kind_of_call(asks: dict[str, Ask], way: str) -> None:
    seen = ask_with(asks, way, "traces", SENT)
    assert len(seen) == 7
    assert {
        name: each for name, each in seen.items() if each[0] != ARRIVES or each[-1] != ARRIVES
    } == {}
    seen = ask_with(asks, way, "traces_in_thread", SENT)
    assert seen == {"typed": [ARRIVES] * 2, "httpx": [ARRIVES] * 2}


def test_what_travels_travels_in_one_process(asks: dict[str, Ask]) -> None:
    seen = asks["local"]("traces")
    (own,) = seen.pop("own")
    assert list(own) == ["x-request-id"]
    assert seen == {name: [own, own] for name in (*clients.TRACES, "httpx")}


OTHER = f"00-{'3' * 32}-{'4' * 16}-00"


@pytest.mark.parametrize("way", ["processes", "elsewhere"])
def test_what_a_request_of_a_client_says_itself_wins(asks: dict[str, Ask], way: str) -> None:
    """A trace of another span goes without the state of ours."""
    seen = ask_with(
        asks,
        way,
        "trace_set_by_hand",
        SENT,
        headers={"traceparent": OTHER, "X-Request-Id": "other"},
    )
    other = {"traceparent": OTHER, "x-request-id": "other", "baggage": TRACE["baggage"]}
    assert seen == [[other, other], [other, other]]


@pytest.mark.parametrize("way", ["processes", "elsewhere"])
def test_a_span_of_the_users_own(asks: dict[str, Ask], way: str) -> None:
    """What is called in it carries it; what is called beside it does not."""
    inside = {"traceparent": clients.SPAN, "x-request-id": "mine", "baggage": TRACE["baggage"]}
    assert ask_with(asks, way, "spans", SENT) == [inside, ARRIVES, ARRIVES]


NO_TRACE = [
    [("traceparent", "00-1-2-01")], [("traceparent", TRACE["traceparent"])] * 2, [("tracestate", "a=1")],
    [("traceparent", f"ff{TRACE['traceparent'][2:]}")], [("traceparent", f"{TRACE['traceparent']}-more")],
    [("traceparent", f"00-{'0' * 32}-{'2' * 16}-01")], [("traceparent", TRACE["traceparent"].replace("1", "A"))],
    [("baggage", "x" * 8193)], [("baggage", "a=1"), ("baggage", "x" * 8190)], [("baggage", "a=\xe4")],
]  # fmt: skip


def test_what_is_no_trace_does_not_travel(asks: dict[str, Ask]) -> None:
    for headers in NO_TRACE:
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
        answer = asks["client of back"](
            "/trace", json={}, headers=[(b"x-request-id", b"mine"), *raw]
        )
        assert answer.json() == [{"x-request-id": "mine"}] * 2, headers
    later = [("traceparent", f"01{TRACE['traceparent'][2:]}-more")]
    answer = asks["client of back"]("/trace", json={}, headers=[("x-request-id", "mine"), *later])
    assert answer.json() == [dict(later) | {"x-request-id": "mine"}] * 2


# --- who held the call ---


def deepest(ask: Callable[[], str]) -> str:
    """Who is named, once in a few times: what is deeper speaks first, unless the machine is too
    busy to hear it.
    """
    for _ in range(8):
        named = ask()
        assert named in ("Leaf", "Back"), "not who asked"
        if named == "Leaf":
            break
    return named


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("path", ["sleep", "block"])
def test_a_deadline_names_the_deepest_node(asks: dict[str, Ask], way: str, path: str) -> None:
    """In coroutines and in threads, on both sides."""
    for api in ("named", "named_in_thread"):
        assert deepest(lambda api=api: asks[way](api, path=path)) == "Leaf"  # type: ignore[misc]


@pytest.mark.parametrize("how", ["typed", "httpx"])
@pytest.mark.parametrize("api", ["late", "late_in_thread"])
@pytest.mark.parametrize("way", ["processes", "elsewhere"])
def test_an_error_that_nobody_catches_is_the_answer(
    asks: dict[str, Ask], way: str, api: str, how: str
) -> None:
    """Also one of httpx: it stands for one of ours."""

    def ask(path: str) -> str:
        headers = {"x-request-timeout": "0.3"}
        answer = asks[f"client of {way}"](
            f"/{api}", json={"how": how, "path": path}, headers=headers
        )
        assert answer.status_code == 504, answer.text
        return str(answer.json()["service"])

    for path in ("sleep", "block"):
        assert deepest(lambda path=path: ask(path)) == "Leaf"  # type: ignore[misc]
