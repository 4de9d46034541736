"""A result is held to its annotation whichever way it leaves: over HTTP, by a hop, and in one
process.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator

import httpx
import pytest

import graphserve
from tests.apps import results
from tests.harness import APPS, Served, served

ROOT = APPS.parent.parent
WAYS = ("typed", "by_string", "elsewhere", "elsewhere_by_string")
# by way and API: of a right result, and of a wrong one
Answers = dict[str, dict[str, tuple[str, str]]]
MISFIT = re.compile(r"the result of Results\.\w+ does not fit its annotation: .*", re.DOTALL)


@pytest.fixture(scope="module")
def graph() -> Iterator[Served]:
    # so that answers have the words
    with served("tests.apps.results:Results", "--reload", cwd=ROOT) as graph:
        yield graph


@pytest.fixture(scope="module")
def by_hop(graph: Served) -> Answers:
    env = {"RESULTS_URL": graph.url}
    with served("tests.apps.results:Asks", cwd=ROOT, env=env) as asking, asking.client() as client:
        return {
            way: client.post("/ask_all", json={"way": way}).raise_for_status().json()
            for way in WAYS
        }


@pytest.fixture(scope="module")
def in_process() -> Answers:
    async def ask() -> Answers:
        async with graphserve.local(results.Asks) as gateway:
            return {way: await gateway.ask_all(way) for way in ("typed", "by_string")}

    return asyncio.run(ask())


def by_http(
    graph: Served, name: str, wrong: bool, accept: str = "application/json"
) -> httpx.Response:
    with graph.client(headers={"accept": accept}) as client:
        return client.post(
            f"/{name}", json={"wrong": [wrong, wrong] if name == "batched" else wrong}
        )


@pytest.mark.parametrize("name", results.GIVEN)
def test_a_result_that_does_not_fit_is_told_in_the_same_words(
    graph: Served, by_hop: Answers, in_process: Answers, name: str
) -> None:
    hop, local = by_hop["typed"][name][1], in_process["typed"][name][1]
    assert hop == local
    for accept in ("application/json", "application/msgpack"):
        answer = by_http(graph, name, wrong=True, accept=accept)
        assert answer.status_code == 500, answer.text
        assert said(answer.json()["detail"]) == said(hop)


@pytest.mark.parametrize("name", results.GIVEN)
def test_a_result_that_fits_is_the_same_everywhere(
    graph: Served, by_hop: Answers, in_process: Answers, name: str
) -> None:
    assert by_hop["typed"][name][0] == in_process["typed"][name][0]
    assert by_http(graph, name, wrong=False).status_code == 200


@pytest.mark.parametrize("name", ["stream", "stream_in_thread"])
def test_items_of_streams_are_held_to_it_too(graph: Served, name: str) -> None:
    answer = by_http(graph, name, wrong=True)
    assert answer.status_code == 500
    assert "Expected `str`, got `int`" in said(answer.json()["detail"])
    assert by_http(graph, name, wrong=False).text == '"a"\n'


@pytest.mark.parametrize("name", [*results.GIVEN, *results.STREAMS])
def test_every_way_to_call_holds_results_to_their_annotation(
    by_hop: Answers, in_process: Answers, name: str
) -> None:
    answers = [
        *((way, by_hop[way]) for way in WAYS),
        *(("local " + way, of) for way, of in in_process.items()),
    ]
    wrong = {way: of[name][1] for way, of in answers}
    assert {text.partition(":")[0] for text in wrong.values()} == {"RemoteError 502"}, wrong
    assert len({said(text).partition(" does not fit")[2] for text in wrong.values()}) == 1, wrong
    for way, of in answers:
        assert "Error" not in of[name][0], (way, of[name][0])


def test_a_public_client_that_asks_for_it_is_told_too(graph: Served) -> None:
    accept = "application/vnd.graphserve+msgpack; checked=1"
    answer = by_http(graph, "text", wrong=False, accept=accept)
    assert answer.headers["content-type"] == "application/vnd.graphserve+msgpack"
    assert by_http(graph, "text", wrong=True, accept=accept).status_code == 500


def test_an_array_in_place_of_a_list_says_what_to_write(by_hop: Answers) -> None:
    for name in ("numbers", "nested", "zero", "batched"):
        assert by_hop["typed"][name][1].endswith(
            "got `numpy.ndarray`: return .tolist() of it, or annotate np.ndarray"
        )


def said(text: str) -> str:
    found = MISFIT.search(text)
    assert found is not None, text
    return found.group()
