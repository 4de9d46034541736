"""What was raised is logged from the user's first frame on; the caller's log has the line that made
the call.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.harness import Served, served
from tests.logs.test_logged_errors import Log

# What was raised: in the worker that raised it, part by part of the chain, the functions of its
# frames.
RAISED: dict[str, list[list[str]]] = {
    "plain": [["plain"]],
    "chained": [["chained"], ["chained"]],
    "threaded": [["threaded"]],
    "exits": [["exits"]],
    "batched": [["batched"]],
    "stream": [["stream"]],
    "generator": [["generator"]],
}


@pytest.fixture(scope="module")
def far() -> Iterator[Log]:
    with served("raising:Raising", "--log-format", "json") as graph:
        graph.url = graph.wait_log(r'serving on ([^\s"]+)').group(1)
        yield Log(graph)


@pytest.fixture(scope="module")
def near(far: Log) -> Iterator[Log]:
    with served(
        "raising:Asking", "--log-format", "json", env={"RAISING_URL": far.graph.url}
    ) as graph:
        graph.url = graph.wait_log(r'serving on ([^\s"]+)').group(1)
        yield Log(graph)


def parts(traceback: str) -> list[list[str]]:
    """The functions of the frames of each part of a chain."""
    assert "graphserve/" not in traceback.replace("graphserve/tests", "")
    found = []
    for part in re.split(r"\n\n.*exception.*:\n\n", traceback):
        functions = re.findall(r'File "[^"]*", line \d+, in (\S+)', part)
        if functions:
            found.append(functions)
    return found


@pytest.mark.parametrize("where", ["near", "far"])
@pytest.mark.parametrize("name", RAISED)
def test_an_error_and_the_call_that_met_it(near: Log, far: Log, name: str, where: str) -> None:
    id = f"{name}-{where}"
    with near.graph.client() as client:
        answer = client.post(
            "/ask", json={"name": name, "where": where}, headers={"x-request-id": id}
        )
    assert answer.status_code == 502
    raised = (near if where == "near" else far).wait(
        node="Raising", **{"fields": {"request_id": id}}
    )
    assert parts(raised["traceback"]) == RAISED[name]
    met = near.wait(node="Asking", **{"fields": {"request_id": id}})
    own, branch, below = met["traceback"].partition("└─ ")
    ((first, *rest),) = parts(own)
    assert first == "ask" and set(rest) <= {"<listcomp>"}
    if where == "near":  # what a service elsewhere says of itself is in its own log
        assert below.startswith(f"Raising.{name}: Raising raised ")
        assert parts(below.replace("\n   ", "\n")) == RAISED[name]
    else:
        assert not branch
    assert "getattr(other, name)(" in met["traceback"]


@pytest.mark.parametrize("where", ["near", "far"])
def test_the_call_of_a_thread(near: Log, where: str) -> None:
    id = f"thread-{where}"
    with near.graph.client() as client:
        asked = {"name": "plain", "where": where}
        assert (
            client.post("/ask_in_a_thread", json=asked, headers={"x-request-id": id}).status_code
            == 502
        )
    met = near.wait(node="Asking", **{"fields": {"request_id": id}})
    assert parts(met["traceback"].partition("└─ ")[0]) == [["ask_in_a_thread"]]
    assert (
        met["traceback"].splitlines()[2].strip()
        == "answer = getattr(getattr(self, where), name)().result()"
    )


STARTS = {
    "FailsInInit": [["fails"], ["__init__", "fails"]],
    "FailsInEnter": [["fails"], ["__aenter__", "fails"]],
    "WrongInit": [],
}


@pytest.mark.parametrize("target", STARTS)
def test_a_start_that_fails(target: str) -> None:
    graph = Served(f"raising:{target}")
    try:
        assert graph.wait_exit(60) in (3, 4)
        text = graph.text[graph.text.index("Error: ") :]
        assert parts(text) == STARTS[target]
    finally:
        graph.close()


def test_an_import_that_fails() -> None:
    graph = Served("raising:Raising", env={"RAISING_AT_IMPORT": "1"})
    try:
        assert graph.wait_exit(60) == 4
        text = graph.text[graph.text.index("Error: ") :]
        assert parts(text) == [["fails"], ["<module>", "fails"]]
        assert "frozen" not in text
    finally:
        graph.close()


def test_what_leaving_raises() -> None:
    with served("raising:FailsInExit", "--log-format", "json") as graph:
        assert graph.stop() == 0
        record = Log(graph).wait(message="FailsInExit.__aexit__ raised ValueError: then")
        assert parts(record["traceback"]) == [["fails"], ["__aexit__", "fails"]]
