"""A result is held to its annotation whichever way it leaves: over HTTP, by a hop, and in one process."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

import graphserve
from tests.apps import results
from tests.harness import APPS, Served, served

ROOT = APPS.parent.parent
MISFIT = re.compile(r"the result of Results\.\w+ does not fit its annotation: .*", re.DOTALL)


@pytest.fixture(scope="module")
def graph() -> Iterator[Served]:
    with served("tests.apps.results:Results", "--reload", cwd=ROOT) as graph:  # so that answers have the words
        yield graph


@pytest.fixture(scope="module")
def by_hop() -> Iterator[dict[str, tuple[str, str]]]:
    with served("tests.apps.results:Asks", cwd=ROOT) as graph, graph.client() as client:
        yield client.post("/ask_all", json={}).raise_for_status().json()


@pytest.fixture(scope="module")
def in_process() -> dict[str, tuple[str, str]]:
    async def ask() -> dict[str, tuple[str, str]]:
        async with graphserve.local(results.Asks) as gateway:
            return await gateway.ask_all()

    return asyncio.run(ask())


def by_http(graph: Served, name: str, wrong: bool, accept: str = "application/json") -> httpx.Response:
    with graph.client(headers={"accept": accept}) as client:
        return client.post(f"/{name}", json={"wrong": [wrong, wrong] if name == "batched" else wrong})


@pytest.mark.parametrize("name", results.GIVEN)
def test_a_result_that_does_not_fit_is_told_in_the_same_words(
    graph: Served, by_hop: dict[str, Any], in_process: dict[str, Any], name: str
) -> None:
    hop, local = by_hop[name][1], in_process[name][1]
    assert hop == local
    for accept in ("application/json", "application/msgpack"):
        answer = by_http(graph, name, wrong=True, accept=accept)
        assert answer.status_code == 500, answer.text
        assert said(answer.json()["detail"]) == said(hop)


@pytest.mark.parametrize("name", results.GIVEN)
def test_a_result_that_fits_is_the_same_everywhere(
    graph: Served, by_hop: dict[str, Any], in_process: dict[str, Any], name: str
) -> None:
    assert by_hop[name][0] == in_process[name][0]
    assert by_http(graph, name, wrong=False).status_code == 200


@pytest.mark.parametrize("name", ["stream", "stream_in_thread"])
def test_items_of_streams_are_held_to_it_too(graph: Served, name: str) -> None:
    answer = by_http(graph, name, wrong=True)
    assert answer.status_code == 500
    assert "Expected `str`, got `int`" in said(answer.json()["detail"])
    assert by_http(graph, name, wrong=False).text == '"a"\n'


def test_an_array_in_place_of_a_list_says_what_to_write(by_hop: dict[str, Any]) -> None:
    for name in ("numbers", "nested", "zero", "batched"):
        assert by_hop[name][1].endswith("got `numpy.ndarray`: return .tolist() of it, or annotate np.ndarray")


def said(text: str) -> str:
    found = MISFIT.search(text)
    assert found is not None, text
    return found.group()
