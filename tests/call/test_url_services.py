"""Calls to a service that runs elsewhere, and by httpx clients: the same as beside the caller, and
in one process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.apps import elsewhere
from tests.call.test_three_ways import Ask, as_processes, in_this_process
from tests.harness import APPS, Served, eventually, rarely, served

ROOT = APPS.parent.parent
WAYS = ("local", "processes", "elsewhere")


@pytest.fixture(scope="module")
def asks() -> Iterator[dict[str, Ask]]:
    with ExitStack() as stack:
        far = stack.enter_context(served("tests.apps.elsewhere:Far", cwd=ROOT))
        yield {
            "local": stack.enter_context(in_this_process(elsewhere.Beside)),
            "processes": stack.enter_context(as_processes("tests.apps.elsewhere:Beside")),
            "elsewhere": stack.enter_context(
                as_processes("tests.apps.elsewhere:Gateway", {"FAR_URL": far.url})
            ),
        }


@pytest.fixture(params=WAYS)
def ask(request: pytest.FixtureRequest, asks: dict[str, Ask]) -> Ask:
    return asks[request.param]


# --- uploads ---


def test_an_upload_arrives_whole(ask: Ask) -> None:
    assert ask("uploads") == ["none 14850", "a b&c=ä 14850", '"5" 14850', [44550]]


def test_an_upload_waits_for_a_slow_api(ask: Ask) -> None:
    assert ask("furthest", pieces=500) < 250 * len(elsewhere.PIECE)


def test_an_upload_that_is_cancelled_ends_on_both_sides(ask: Ask) -> None:
    assert ask("cancelled") == [1, 0]


def test_what_an_upload_raises_is_the_callers_own(ask: Ask) -> None:
    assert ask("wrong_upload", kind="raises") == ["ConnectError", "of its own"]


def test_a_piece_that_is_no_bytes_does_not_fit(ask: Ask) -> None:
    says = "Far.total: 'chunks' is an iterator of bytes; one piece was 'text'"
    assert ask("wrong_upload", kind="text") == ["InvalidArguments", says]


# --- files on disk ---


@pytest.mark.parametrize("way", WAYS)
def test_a_file_is_one_here_and_removed_with_the_call(asks: dict[str, Ask], way: str) -> None:
    site = APPS / "files" / "site"
    named, *others = asks[way]("files")
    assert [named[0], {text for _, text, _ in (named, *others)}] == ["style.css", {"body {}\n"}]
    for _, _, folder in (named, *others):
        if way == "elsewhere":
            eventually(lambda folder=folder: not os.path.exists(folder))
        else:
            assert folder == str(site)


# --- httpx clients ---

NDJSON = [200, "application/x-ndjson", "no-store"]
EVENTS = [200, "text/event-stream", "no-store"]
ASKS_EVENTS = {"accept": "text/event-stream"}
CUT = "the answer of Far was cut before its end: its API raised, or its worker ended; see its log"
REQUESTS: list[tuple[str, str, dict[str, str], list[Any]]] = [
    ("/count", '{"n": 2}', {}, [*NDJSON, "0\n1\n"]),
    ("/count", '{"n": 0}', {}, [*NDJSON, ""]),
    ("/count", '{"n": 1}', ASKS_EVENTS, [*EVENTS, "id: 1\ndata: 0\n\nevent: end\ndata:\n\n"]),
    ("/breaks", '{"at": 1}', {}, ["RemoteProtocolError", CUT]),
    ("/breaks", '{"at": 0}', {}, [500, "application/problem+json", None, "Far raised ValueError: hidden"]),
    ("/total?name=n", "abc", {"content-type": "image/png"}, [200, "application/json", None, '"n 3"']),
    ("/total?name=5", "abc", {"content-type": "image/png"}, [200, "application/json", None, '"5 3"']),
    ("/total", "", {}, [200, "application/json", None, '"none 0"']),
    ("/doubled?times=4", "abc", {}, [*NDJSON, "12\n"]),
    ("/double", "x", {"content-type": "image/png"}, [415, "application/problem+json", None, (
        "/double takes application/json in UTF-8 or application/msgpack, not 'image/png'"
    )]),
]  # fmt: skip


@pytest.mark.parametrize("way", ["local", "processes"])
@pytest.mark.parametrize("api", ["raw", "raw_in_thread"])
@pytest.mark.parametrize(("path", "body", "headers", "seen"), REQUESTS)
def test_an_httpx_client_sees_the_same(
    asks: dict[str, Ask],
    way: str,
    api: str,
    path: str,
    body: str,
    headers: dict[str, str],
    seen: list[Any],
) -> None:
    assert asks[way](api, path=path, body=body, headers=headers) == seen


@pytest.mark.parametrize("way", ["local", "processes"])
def test_an_error_in_mid_stream_is_an_event(asks: dict[str, Ask], way: str) -> None:
    seen = asks[way]("raw", path="/breaks", body='{"at": 1}', headers=ASKS_EVENTS)
    assert seen[:3] == EVENTS
    assert seen[3].startswith(
        'id: 1\ndata: 0\n\nevent: error\ndata: {"type":"urn:graphserve:problem:remote"'
    )
    assert "Far raised ValueError: hidden" in seen[3]


# --- logs, and what cannot be reached ---


def test_what_is_not_reached_is_answered_without_its_address() -> None:
    with served("tests.apps.elsewhere:Gateway", cwd=ROOT) as graph, graph.client() as client:
        for _ in range(2):
            answer = client.post("/doubles", json={"x": 1})
            assert (answer.status_code, answer.json()["detail"]) == (503, "Far cannot be reached")
        graph.wait_log(r"Far at http://127\.0\.0\.1:1/inner cannot be reached: .*connect")
        assert graph.stop() == 0
        assert graph.text.count("cannot be reached") == 1, "not with each call"
        assert "s3cret" not in graph.text


def test_a_proxy_that_cannot_be_used_is_answered_at_once() -> None:
    env = {"ALL_PROXY": "gopher://127.0.0.1:1", "NO_PROXY": "", "FAR_URL": "http://service.example"}
    with served("tests.apps.elsewhere:Typed", cwd=ROOT, env=env) as graph, graph.client() as client:
        answer = client.post("/doubles", json={"x": 1})
        assert (answer.status_code, answer.json()["service"]) == (503, "Far")
        graph.wait_log("Far at http://service.example cannot be reached: .*gopher")


@pytest.mark.parametrize(("level", "shown"), [("info", False), rarely("debug", True)])
def test_each_request_is_a_line_at_debug_alone(level: str, shown: bool) -> None:
    with ExitStack() as stack:
        far = stack.enter_context(served("tests.apps.elsewhere:Far", cwd=ROOT))
        env = {"FAR_URL": far.url}
        arguments = ("--log-level", level)
        graph = stack.enter_context(
            served("tests.apps.elsewhere:Gateway", *arguments, cwd=ROOT, env=env)
        )
        _use(graph)
        assert graph.stop() == 0
        assert ("HTTP Request: POST" in graph.text) == shown
        assert "never retrieved" not in graph.text


def _use(graph: Served) -> None:
    with graph.client() as client:
        assert client.post("/streamed", json={"n": 3}).json() == [0, 1, 2]
        raw = {
            "path": "/double",
            "body": '{"x": 2}',
            "headers": {"content-type": "application/json"},
        }
        for name in ("raw", "raw_in_thread"):
            assert client.post(f"/{name}", json=raw).json()[3] == "4"
