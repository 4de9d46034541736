"""Who shares a batch and who does not, and that each caller of it keeps what is its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.harness import APPS, Served, served

ROOT = APPS.parent.parent


@pytest.fixture(scope="module")
def graph() -> Iterator[Served]:
    with served("tests.apps.batches:Gateway", cwd=ROOT) as graph:
        yield graph


def ask(graph: Served, name: str, **arguments: Any) -> Any:
    with graph.client() as client:
        answer = client.post(f"/{name}", json=arguments)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_callers_share_a_batch_if_what_is_no_list_is_equal(graph: Served) -> None:
    calls = [
        {"xs": [1]},
        {"xs": [2, 3]},
        {"xs": [4], "prefix": "no "},
        {"xs": [5], "prefix": "no "},
    ]
    assert ask(graph, "labels", calls=calls) == [
        ["1 of 3"],
        ["2 of 3", "3 of 3"],
        ["no 4 of 2"],
        ["no 5 of 2"],
    ]


def test_who_does_not_fit_is_refused_alone(graph: Served) -> None:
    calls = [{"xs": [1]}, {"xs": ["2"]}, {"xs": [3], "suffix": "?"}, {"xs": [4]}]
    refused = ["InvalidArguments", 422]
    assert ask(graph, "labels", calls=calls) == [["1 of 2"], refused, refused, ["4 of 2"]]


def test_a_list_that_is_too_long_is_cut_beside_others(graph: Served) -> None:
    long, other = ask(graph, "labels", calls=[{"xs": list(range(11))}, {"xs": [50]}])
    assert [label.split()[0] for label in long] == [str(x) for x in range(11)]
    assert max(int(label.split()[-1]) for label in [*long, *other]) <= 8
    assert other[0].startswith("50 of ")


def test_arrays_share_a_batch_if_they_have_one_dtype_and_keep_it(graph: Served) -> None:
    left, right = [["a", "<i4"], ["b", "<f8"]], [["b", "<f8"], ["a", "<i4"]]  # of one size
    dtypes = [">i4", ">i4", "<i4", "float32", left, left, right, "M8[s]"]
    assert ask(graph, "kinds", dtypes=dtypes) == [
        [">i4 (3,), 4 items"] * 2, [">i4 (3,), 4 items"] * 2, ["int32 (3,), 2 items"] * 2,
        ["float32 (3,), 2 items"] * 2,
        ["[('a', '<i4'), ('b', '<f8')] (3,), 4 items"] * 2, ["[('a', '<i4'), ('b', '<f8')] (3,), 4 items"] * 2,
        ["[('b', '<f8'), ('a', '<i4')] (3,), 2 items"] * 2, ["datetime64[s] (3,), 2 items"] * 2,
    ]  # fmt: skip


def test_each_caller_keeps_its_request_id(graph: Served) -> None:
    ids: dict[str, str] = {}

    def call(mine: str) -> None:
        with graph.client() as client:
            answer = client.post("/raising", json={"x": 1}, headers={"x-request-id": mine})
        assert (answer.status_code, answer.json()["service"]) == (418, "Model")
        ids[mine] = answer.json()["request_id"]

    threads = [threading.Thread(target=call, args=(f"caller-{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ids == {f"caller-{number}": f"caller-{number}" for number in range(4)}


def test_each_caller_keeps_its_trace(graph: Served) -> None:
    """What a batch calls is part of no single caller's trace, unless it is the only one."""
    traces = [
        {"traceparent": f"00-{n:032x}-{n:016x}-01", "tracestate": f"mine={n}"} for n in (1, 2)
    ]
    answers: list[Any] = []

    def call(headers: dict[str, str], xs: list[int]) -> None:
        with graph.client() as client:
            answers.append(client.post("/traces", json={"xs": xs}, headers=headers).json())

    threads = [threading.Thread(target=call, args=(headers, [1])) for headers in traces]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [[["", ""]]] * 2
    call(traces[0], [1, 2])
    assert answers[2] == [list(traces[0].values())] * 2


def test_threads_share_batches(graph: Served) -> None:
    assert {label.split()[-1] for (label,) in ask(graph, "in_threads", count=8)} == {"8"}


def test_calls_that_were_given_up_leave_before_the_batch_runs() -> None:
    with served("tests.apps.batches:Gateway", cwd=ROOT) as graph:
        assert ask(graph, "leaves", timeout=0.1) == [[99, 0, 0, 0, 0, 0, 0, 0], [3]]


def test_two_free_workers_do_not_split_what_comes(graph: Served) -> None:
    for _ in range(3):
        assert set(ask(graph, "sizes", callers=12)) == {12}
