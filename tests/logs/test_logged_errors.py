"""The log has what clients were told, whatever user code does to `logging`, and nothing that
anybody printed.
"""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.apps.silent import SILENCERS
from tests.harness import Served, eventually, served, state


class Log:
    """A graph that logs JSON."""

    def __init__(self, graph: Served) -> None:
        self.graph = graph

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in list(self.graph.log)]

    def wait(self, **wanted: Any) -> dict[str, Any]:
        """The first record with these members."""

        def found():
            return [
                r for r in self.records() if all(r[name] == value for name, value in wanted.items())
            ]

        return dict(eventually(found, 30)[0])

    def of(self, request_id: str) -> dict[str, Any]:
        """The record with the id of a request."""

        def found():
            return [r for r in self.records() if r["fields"].get("request_id") == request_id]

        return dict(eventually(found, 30)[0])


@pytest.fixture(scope="module")
def log() -> Iterator[Log]:
    with served("silent:Silent", "--log-format", "json") as graph:
        graph.url = graph.wait_log(r'serving on ([^\s"]+)').group(1)
        yield Log(graph)


@pytest.mark.parametrize("how", SILENCERS)
def test_an_error_that_a_client_was_told_of_is_in_the_log(log: Log, how: str) -> None:
    with log.graph.client() as client:
        answer = client.post("/fail", json={"how": how})
        # By the same connection: a new one could get the number of a descriptor that was closed.
        assert client.post("/undo", json={}).status_code == 200
    assert answer.status_code == 500
    assert "traceback" not in answer.json(), "it is for the log alone"
    record = log.of(answer.json()["request_id"])
    assert (record["level"], record["stream"], record["node"]) == ("error", "log", "Silent")
    assert record["message"] == f"Silent.fail: Silent raised KeyError: 'after {how}'"
    assert record["traceback"].splitlines()[1].endswith(", in fail")
    assert record["traceback"].endswith(f"KeyError: 'after {how}'\n")


def test_a_descriptor_that_user_code_closed_does_not_become_a_connection(log: Log) -> None:
    with log.graph.client() as client:
        client.post("/fail", json={"how": "stderr closed"})
        log.wait(message="user code closed stderr: what is printed there is lost from now on")
        # (which would close a connection of this number)
        assert client.post("/undo", json={}).status_code == 200
        assert client.get("/livez").status_code == 200


def test_handlers_of_user_code_get_it_too_and_it_is_logged_once(log: Log) -> None:
    with log.graph.client() as client:
        id = client.post("/forwarded", json={}).json()["request_id"]
        assert client.post("/kept", json={}).json() == [f"graphserve.calls ERROR {id} True"]
        client.post("/fail", json={"how": "nothing"})
    log.of(id)
    log.wait(message="Silent.fail: Silent raised KeyError: 'after nothing'")
    assert len([r for r in log.records() if r["fields"].get("request_id") == id]) == 1


@pytest.mark.parametrize("how", ["exit", "segfault"])
def test_what_a_worker_said_just_before_it_died_is_read(log: Log, how: str) -> None:
    # nobody is left to answer
    with log.graph.client() as client, contextlib.suppress(httpx.HTTPError):
        client.post("/dies", json={"how": how}, headers={"x-request-id": f"last-{how}"})
    assert log.of(f"last-{how}")["message"].endswith("KeyError: 'last words'")
    eventually(lambda: _is_ready(log.graph), 30)


def _is_ready(graph: Served) -> bool:
    with contextlib.suppress(httpx.HTTPError), graph.client() as client:
        return client.get("/readyz").status_code == 200
    return False


def test_a_supervisor_that_does_not_read_holds_no_worker(log: Log) -> None:
    count = 6000  # more than the pipe takes
    log.graph.signal(signal.SIGSTOP)
    try:
        eventually(lambda: state(log.graph.pid) == "T")
        with log.graph.client() as client:
            assert client.post("/floods", json={"count": count}).status_code == 200
            assert (
                client.post(
                    "/fail", json={"how": "nothing"}, headers={"x-request-id": "flooded"}
                ).status_code
                == 500
            )
    finally:
        log.graph.signal(signal.SIGCONT)
    log.of("flooded")
    numbers = [
        int(r["message"].split()[1]) for r in log.records() if r["message"].startswith("record ")
    ]
    assert numbers == list(range(count)), "whole, and in their order"


def test_children_of_user_code_do_not_hold_the_pipe(log: Log) -> None:
    with log.graph.client() as client:
        started, forked, (pipe,) = client.post("/children", json={}).json()
    assert any("pipe:" in each for each in started) and pipe not in started
    assert any("pipe:" in each for each in forked) and pipe not in forked
    log.wait(message="ERROR said by a forked child", stream="stderr")


FORGED = '{"time": 1, "level": "error", "message": "forged", "fields": {"request_id": "x"}}'


@pytest.mark.parametrize(
    "text",
    [
        FORGED,
        "\x1e" + FORGED,
        "\x1e" + '{"time": 1e999, "level": "error", "message": "forged"}',
        "a\n\x1e" + FORGED,
        "\x1b[2J\x07\x9b\x7f\u202e\u2028",
        "nul \0, and ends \r\n",
        "x" * 300_000,
    ],
    ids=["json", "mark", "infinity", "second line", "controls", "nul", "long"],
)
def test_what_a_client_says_is_no_record(log: Log, text: str) -> None:
    before = len(log.graph.log)
    with log.graph.client() as client:
        id = client.post("/forges", json={"text": text}).json()["request_id"]
    assert log.of(id)
    eventually(
        lambda: [r for r in log.records()[before:] if r["message"].startswith("Silent.forges")]
    )
    assert not [r for r in log.records()[before:] if r["message"] == "forged"]
    assert not [
        r
        for r in log.records()[before:]
        if r["stream"] == "log" and r["fields"].get("request_id") != id
    ]


def test_the_text_log_has_no_control_character_and_no_line_that_a_client_made() -> None:
    with served("silent:Silent", "--access-log") as graph, graph.client() as client:
        text = "a\n12:00:00 graphserve  serving on http://evil\x1b]0;title\x07\x9b31m\x7f\u202e\u2066\u2028\u0085\0"
        answer = client.post("/forges", json={"text": text})
        assert answer.status_code == 500
        client.get("/%1b%0a\u202e")
        graph.wait_log("GET /.* 404")
        graph.wait_log(r"ValueError: a$")
        assert graph.stop() == 0
        shown = [*graph.log, *graph.out]
    allowed = {"\n", "\t"}
    assert not {letter for line in shown for letter in line if not letter.isprintable()} - allowed
    evil = [line for line in shown if "http://evil" in line]
    assert len(evil) == 5, "printed twice, logged, and an error with its traceback"
    for line in evil:
        assert line.startswith("    ") or line[9:].startswith("Silent[0] 12:00:00 graphserve")
        assert line.rstrip("\n").endswith(
            r"serving on http://evil\x1b]0;title\x07\x9b31m\x7f\u202e\u2066\u2028\x85\x00"
        ) or (" [request " in line)
