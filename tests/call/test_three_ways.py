"""One program, three ways: in one process, as a graph of processes, and with a dependency that is
served elsewhere.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

import graphserve
from tests.apps import ways
from tests.harness import APPS, eventually, served

ROOT = APPS.parent.parent
Ask = Callable[..., Any]  # calls an API of the gateway by name


@contextmanager
def in_this_process(cls: type) -> Iterator[Ask]:
    """`local()` on a loop of its own, called from the test's thread."""
    gateways: list[Any] = []
    ready, over = threading.Event(), threading.Event()

    async def live() -> None:
        try:
            async with graphserve.local(cls) as gateway:
                gateways.append(gateway)
                ready.set()
                await asyncio.to_thread(over.wait)
        finally:
            ready.set()

    thread = threading.Thread(target=asyncio.run, args=(live(),))
    thread.start()
    try:
        assert ready.wait(60) and gateways
        yield lambda name, /, **arguments: getattr(gateways[0], name)(**arguments).result(60)
    finally:
        over.set()
        thread.join(60)


@contextmanager
def as_processes(target: str, env: dict[str, str] | None = None) -> Iterator[Ask]:
    with served(target, cwd=ROOT, env=env) as graph, graph.client() as client:
        yield asking(client)


def asking(client: httpx.Client) -> Ask:
    """A client of an entry, which has answers of its APIs."""

    def ask(name: str, /, **arguments: Any) -> Any:
        answer = client.post(f"/{name}", json=arguments)
        assert answer.status_code == 200, answer.text
        return answer.json()

    return ask


@pytest.fixture(scope="module")
def asks() -> Iterator[dict[str, Ask]]:
    with ExitStack() as stack:
        echo = stack.enter_context(served("tests.apps.ways:Echo", cwd=ROOT))
        yield {
            "local": stack.enter_context(in_this_process(ways.Near)),
            "processes": stack.enter_context(as_processes("tests.apps.ways:Near")),
            "elsewhere": stack.enter_context(
                as_processes("tests.apps.ways:Far", {"WAYS_URL": echo.url})
            ),
        }


@pytest.fixture(params=["local", "processes", "elsewhere"])
def ask(request: pytest.FixtureRequest, asks: dict[str, Ask]) -> Ask:
    return asks[request.param]


@pytest.mark.parametrize("kind", ways.KINDS)
def test_values_arrive_as_they_were_sent(ask: Ask, kind: str) -> None:
    expected = ways.describe(ways.KINDS[kind][1]).replace(" rw ", " ro ")
    assert ask("value", kind=kind) == expected
    assert ask("value_in_thread", kind=kind) == expected


NATURAL = {
    "integer": "int 1099511627776",
    "bytes_": r"bytes b'\x00\xff\x00\xff\x00\xff'",
    "tuple_": "list['int 1', \"str 'a'\"]",
    "set_": "list[\"str 'a'\"]",
    "colour": "str 'blue'",
    "key": f"str '{ways.KEY}'",
    "exact": "str '1.10'",
    "day": "str '2026-01-02'",
    "naive": "str '2026-01-02T12:00:03.000045'",
    "box": "dict",
    "point": "list['int 1', 'float 2.0']",
    "user": "dict",
    "array": "array(int16 (2, 3) ro [0, 1, 2, 3, 4, 5])",
    "scan": "dict",
}


@pytest.mark.parametrize("kind", NATURAL)
def test_a_dependency_by_import_string_gives_natural_values(ask: Ask, kind: str) -> None:
    assert ask("natural", kind=kind).startswith(NATURAL[kind])


CALLS = [
    ("defaults", [1], {}, [1, 2, None]),
    ("defaults", [1, 5], {"c": [3]}, [1, 5, [3]]),
    ("defaults", [], {"c": [], "a": 0}, [0, 2, []]),
    ("sync_add", [1, 2.5], {}, 3.5),
    ("real", [1], {}, "float 1.0"),
    ("whole", [], {"x": 7}, "int 7"),
]


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize(("name", "args", "kwargs", "result"), CALLS)
def test_calls_by_position_and_by_name(
    ask: Ask, name: str, args: list[Any], kwargs: dict[str, Any], result: Any, lazy: bool
) -> None:
    assert ask("ask", name=name, args=args, kwargs=kwargs, lazy=lazy) == result


def remote(node: str = "Echo", status: int = 502) -> dict[str, Any]:
    return {"class": "RemoteError", "status": status, "node": node}


def invalid(loc: list[str | int], kind: str) -> dict[str, Any]:
    return {"class": "InvalidArguments", "status": 422, "node": "Echo", "errors": [[loc, kind]]}


TAKEN = {
    "class": "Problem", "status": 409, "title": "Taken", "detail": "seat 4", "node": "Echo", "type": "urn:taken",
    "extensions": {"seat": [4]}, "headers": {"retry-after": "3", "x-seat": "4"},
}  # fmt: skip
ERRORS: list[tuple[str, list[Any], dict[str, Any]]] = [
    ("fail", ["problem"], TAKEN),
    ("fail", ["other"], remote()),
    ("fail", ["exit"], remote()),
    ("sync_fail", ["x"], remote()),
    ("sync_fail", ["stop"], remote()),
    ("wrong_result", [], remote()),
    ("no_result", [], remote()),
    (
        "deep_fail",
        ["problem"],
        {"class": "Problem", "status": 418, "node": "Deep", "extensions": {"pot": 1}},
    ),
    ("deep_fail", ["other"], remote("Deep")),
    ("crowd", [], {"class": "Unavailable", "status": 503, "node": "Narrow", "retry_after": 1.0}),
    ("whole", ["1"], invalid(["x"], "type_error")),
    ("whole", [1.5], invalid(["x"], "type_error")),
    ("whole", [True], invalid(["x"], "type_error")),
    ("real", ["1"], invalid(["x"], "type_error")),
    ("whole", [], invalid(["x"], "missing_argument")),
    ("whole", [1, 2], invalid([], "unexpected_argument")),
    ("boxes", [[{"left": 1}, {"left": "2"}]], invalid(["value", 1, "left"], "type_error")),
    ("user", [{"name": 1, "born": "2026-01-02"}], invalid(["value", "name"], "string_type")),
    ("floats", [[[1.0, 2.0, 3.0]]], invalid(["value"], "value_error")),
    ("whole", ["an object"], invalid(["x"], "encoding")),
    ("defaults", [1, 5, [3]], invalid([], "unexpected_argument")),
]


@pytest.mark.parametrize(("name", "args", "expected"), ERRORS, ids=lambda case: str(case)[:24])
def test_errors_are_the_same(
    ask: Ask, name: str, args: list[Any], expected: dict[str, Any]
) -> None:
    # a typed caller would not pass such arguments on
    lazy = expected["class"] == "InvalidArguments"
    found = ask("error", name=name, args=args, lazy=lazy)
    assert {key: found.get(key) for key in expected} == expected


SAID: list[tuple[str, list[Any], str]] = [
    ("whole", ["an object"], "Echo.whole: argument 'x': a value of type object cannot be sent"),
    ("numbers", ["an array"], "arguments of Echo.numbers: x: Expected `list`, got `numpy.ndarray`"),
    (
        "numbers",
        ["a large array"],
        "arguments of Echo.numbers: x: Expected `list`, got `numpy.ndarray`",
    ),
    ("numbers", ["a photo"], "arguments of Echo.numbers: x: Expected `array`, got `object`"),
    ("box", ["a photo"], "arguments of Echo.box: value.left: Object missing required field `left`"),
    ("positive", ["1"], "Echo.positive: argument 'x': Input should be a valid integer"),
    (
        "photo_size",
        [{"image": "a"}],
        "Echo.photo_size: argument 'photo': Expected `Photo`, got `dict`",
    ),
    ("photo_size", ["a box"], "Echo.photo_size: argument 'photo': Expected `Photo`, got `Box`"),
    ("defaults", [1, 5, [3]], "Echo.defaults takes 2 positional arguments, got 3"),
]


@pytest.mark.parametrize(("name", "args", "text"), SAID)
def test_a_wrong_argument_is_named_in_plain_words(
    ask: Ask, name: str, args: list[Any], text: str
) -> None:
    said = ask("error", name=name, args=args)
    assert (said["class"], said["detail"]) == ("InvalidArguments", text)
    (error,) = said["errors"]
    place = {"box": ["value", "left"], "photo_size": ["photo"], "defaults": []}
    assert error[0] == place.get(name, ["x"])


def test_the_deadline_names_the_deepest_node(ask: Ask) -> None:
    said = ask("error", name="late", args=[])
    assert (said["class"], said["status"], said["node"]) == ("DeadlineExceeded", 504, "Echo")
    # On a busy machine the word of the deeper node may come too late once.
    eventually(lambda: ask("error", name="deep_late", args=[])["node"] == "Deep")


@pytest.mark.parametrize(("api", "node"), [("fail", "Echo"), ("deep_fail", "Deep")])
def test_a_dependency_that_dies(asks: dict[str, Ask], api: str, node: str) -> None:
    for way in ("processes", "elsewhere"):
        said = asks[way]("error", name=api, args=["die"])
        assert {key: said.get(key) for key in ("class", "status", "node")} == remote(node)
        assert asks[way]("error", name=api, args=["problem"])["class"] == "Problem", (
            "it waits for the next worker"
        )


def test_named_nodes_have_their_own_init(asks: dict[str, Ask]) -> None:
    for way in ("local", "processes"):
        assert asks[way]("languages") == ["en", "ja"]


def test_a_diamond_shares_its_node(asks: dict[str, Ask]) -> None:
    for way in ("local", "processes"):
        assert asks[way]("count") + 1 == asks[way]("count")


LIFE = [
    "Model.__init__ True", "Model.__enter__", "Life.__aenter__ 101 102", "Life.__aexit__ 103 (None, None, None)",
    "Model.__exit__ 1",
]  # fmt: skip


def test_the_life_of_instances_in_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ways, "DIARY", str(tmp_path / "diary"))
    with in_this_process(ways.Life) as ask:
        assert ask("many") == [
            100,
            101,
            102,
            103,
            104,
            105,
            106,
            107,
        ], "one thread, though `workers` is 2"
        assert ask("thread_is_no_loop")
    assert (tmp_path / "diary").read_text().splitlines() == LIFE


def test_the_life_of_instances_in_processes(tmp_path: Path) -> None:
    with served(
        "tests.apps.ways:Life", cwd=ROOT, env={"WAYS_DIARY": str(tmp_path / "diary")}
    ) as graph:
        with graph.client() as client:
            assert client.post("/many", json={}).json() == [100, 101, 102, 103, 104, 105, 106, 107]
            assert client.post("/thread_is_no_loop", json={}).json() is True
        assert graph.stop() == 0
    lines = (tmp_path / "diary").read_text().splitlines()
    assert list(dict.fromkeys(lines)) == LIFE
    assert len(lines) == len(LIFE) + 3, "Model has two workers"
