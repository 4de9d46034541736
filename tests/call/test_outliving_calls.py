"""What outlives the request that started it goes on, and so does what is shielded; in one process
and in several.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest

from graphserve.errors import DeadlineExceeded
from graphserve.loop.shield import shielded
from tests.apps import outliving
from tests.call.test_three_ways import Ask, asking, in_this_process
from tests.harness import APPS, eventually, served

Leave = Callable[[str], Any]  # a call of `Top.hold` whose caller leaves within


@pytest.fixture(scope="module")
def ways() -> Iterator[dict[str, tuple[Ask, Any]]]:
    with ExitStack() as stack:
        graph = stack.enter_context(served("tests.apps.outliving:Top", cwd=APPS.parent.parent))
        client = stack.enter_context(graph.client())
        local = stack.enter_context(in_this_process(outliving.Top))
        yield {"local": (local, None), "processes": (asking(client), graph.url)}


@pytest.fixture(params=["local", "processes"])
def way(
    request: pytest.FixtureRequest, ways: dict[str, tuple[Ask, Any]]
) -> Iterator[tuple[Ask, Any]]:
    ask, url = ways[request.param]
    ask("clear")
    yield ask, url
    ask("release")
    eventually(lambda: ask("counts")[0] == 0)


def begun(ask: Ask, api: str, **arguments: Any) -> list[Any]:
    """Start something by a request, wait until its deadline has passed; its id, and what came of it
    later.
    """
    began = time.monotonic()
    said = ask(api, **arguments)
    eventually(lambda: time.monotonic() > began + outliving.LIMIT + 0.05)
    ask("results", go=True)
    eventually(lambda: len(ask("results", go=False)) >= 1)
    return [said, ask("results", go=False)]


@pytest.mark.parametrize("how", ["task", "timer"])
def test_a_task_keeps_ids_but_no_deadline(way: tuple[Ask, Any], how: str) -> None:
    ask, _ = way
    id, _ = begun(ask, "begin", how=how)
    eventually(lambda: ask("results", go=True) == [[True, id], [True, id], None])


@pytest.mark.parametrize("how", ["to_thread", "thread"])
def test_a_thread_keeps_ids_but_no_deadline(way: tuple[Ask, Any], how: str) -> None:
    id, found = begun(way[0], "begin", how=how)
    assert found == [[True, id]]


@pytest.mark.parametrize("api", ["begin_in_thread", "begin_in_batch", "begin_in_stream"])
def test_so_does_what_other_apis_start(
    way: tuple[Ask, Any], api: str, ways: dict[str, tuple[Ask, Any]]
) -> None:
    ask, url = way
    if api == "begin_in_stream" and url is None:
        pytest.skip("a stream is no single value")
    arguments = {"xs": [1]} if api == "begin_in_batch" else {}
    if api == "begin_in_stream":
        ask = streaming(url, ask)
    said, found = begun(ask, api, **arguments)
    assert found[0] == [True, said[0] if isinstance(said, list) else said]


def streaming(url: str, ask: Ask) -> Ask:
    """As `ask`, for an API that makes one item."""

    def first(name: str, /, **arguments: Any) -> Any:
        if name != "begin_in_stream":
            return ask(name, **arguments)
        return json.loads(httpx.post(f"{url}/{name}", json=arguments, timeout=30).text)

    return first


@pytest.mark.parametrize("how", ["task", "thread"])
def test_what_a_late_request_started_is_not_late_for_ever(way: tuple[Ask, Any], how: str) -> None:
    """Such as a ticker that the first request made."""
    ask, url = way
    if url is None:
        with pytest.raises(DeadlineExceeded):
            ask("begin_and_hang", how=how)
    else:
        answer = httpx.post(f"{url}/begin_and_hang", json={"how": how}, timeout=30)
        assert answer.status_code == 504
    # the loop goes round, so that the API has ended: before, its calls would be late
    ask("results", go=False)
    ask("results", go=True)
    eventually(lambda: ask("results", go=True))
    assert ask("results", go=True)[0][0] is True


# --- shields ---


@contextmanager
def left(ask: Ask, url: str | None, how: str, calls: int = 1) -> Iterator[None]:
    """A call of `hold`, whose caller leaves when what it calls is under way."""
    before = ask("counts")
    body = json.dumps({"how": how})
    if url is None:
        gateway = ask.__closure__[0].cell_contents[0]  # type: ignore[attr-defined]
        call = gateway.hold(how=how)
        eventually(lambda: ask("counts")[0] == before[0] + calls)
        call.cancel()
    else:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), 30) as sock:
            head = f"POST /hold HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
            sock.sendall(f"{head}content-length: {len(body)}\r\n\r\n{body}".encode())
            eventually(lambda: ask("counts")[0] == before[0] + calls)
    yield


SHIELDED = ["call", "coroutine", "group"]


@pytest.mark.parametrize("how", SHIELDED)
def test_what_is_shielded_goes_on_when_the_caller_leaves(way: tuple[Ask, Any], how: str) -> None:
    ask, url = way
    before = ask("counts")
    # one of two is shielded: when the other has ended, so would it have
    with left(ask, url, "beside", 2):
        eventually(lambda: ask("counts")[1] == before[1] + 1)
    with left(ask, url, how):
        pass
    with left(ask, url, "plain"):
        eventually(lambda: ask("counts")[1] == before[1] + 2)
    assert ask("counts")[0] == 2
    ask("release")
    eventually(lambda: ask("counts") == [0, before[1] + 2, before[2] + 2])


@pytest.mark.parametrize("how", ["together", "both", "gathered", "task", "late", "late coroutine"])
def test_so_does_what_is_gathered_inside_or_was_under_way_or_was_given_up(
    way: tuple[Ask, Any], how: str
) -> None:
    ask, url = way
    before = ask("counts")
    calls = 1 if how.startswith("late") else 2
    with left(ask, url, how, calls), left(ask, url, "plain"):
        eventually(lambda: ask("counts")[1] == before[1] + 1)
    assert ask("counts")[0] == calls
    ask("release")
    eventually(lambda: ask("counts") == [0, before[1] + 1, before[2] + calls])


def test_a_caller_that_gives_up_leaves_a_shielded_call_alone(way: tuple[Ask, Any]) -> None:
    ask, _ = way
    before = ask("counts")
    assert ask("cancelled_call") == [True, True]
    eventually(lambda: ask("counts")[:2] == [1, before[1] + 1])


def test_a_shield_is_known_by_what_asyncio_leaves_on_the_task() -> None:
    """Private to asyncio: should it change, this fails, and `shielded` with it."""

    async def inner() -> bool:
        return shielded(asyncio.current_task())

    async def grouped() -> bool:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(inner())
        return task.result()

    async def gathered() -> bool:
        (found,) = await asyncio.gather(inner())
        return found

    async def awaited() -> bool:
        return await asyncio.create_task(gathered())

    async def run() -> list[bool]:
        protected = [await asyncio.shield(work()) for work in (inner, grouped, gathered, awaited)]
        protected += await asyncio.shield(asyncio.gather(inner(), awaited()))
        return [
            *protected,
            *[await work() for work in (inner, grouped, gathered, awaited)],
            shielded(None),
        ]

    assert asyncio.run(run()) == [True] * 6 + [False] * 5
