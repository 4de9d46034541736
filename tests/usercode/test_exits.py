"""What ends a program (`sys.exit`, KeyboardInterrupt, …), raised by user code: it ends its call,
and nobody else.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import graphserve
from graphserve.errors import RemoteError
from graphserve.worker.dispatch import endings
from tests.apps.exits import ENDS, Exits, Leaving
from tests.harness import Served, rarely, served

FAIL = ("plain", "sync", "stream", "sync_stream", "closing", "batch", "child", "group", "gathered")
BESIDE = ("forgotten", "soon", "later", "done", "thread", "deleted")
STREAMS = ("stream", "sync_stream", "closing")
LINES = 'raise ENDS[how]("on purpose")'


@pytest.fixture(scope="module", params=["auto", "asyncio"])
def graph(request: pytest.FixtureRequest) -> Iterator[Served]:
    """One worker, on each kind of event loop."""
    with served("tests.apps.exits:Exits", "--loop", request.param, cwd=Path.cwd()) as graph:
        yield graph


def arguments(name: str, how: str) -> dict[str, Any]:
    return {"how": [how] if name == "batch" else how} | ({"items": 0} if name in STREAMS else {})


@pytest.fixture
def beside(graph: Served) -> Iterator[None]:
    """A call that the same worker executes meanwhile is answered, and the worker is the same
    afterwards.
    """
    answers: list[Any] = []
    with graph.client() as client:
        before = client.post("/pid", json={}).json()

        def call() -> None:
            with graph.client() as other:
                answers.append(other.post("/bystander", json={}).json())

        bystander = threading.Thread(target=call)
        bystander.start()
        yield
        while bystander.is_alive():  # it may have begun to wait only now
            client.post("/release", json={})
            bystander.join(0.05)
        assert answers == ["unharmed"]
        assert client.post("/pid", json={}).json() == before


@pytest.mark.parametrize("name", FAIL)
def test_its_own_call_fails_alone(graph: Served, beside: None, name: str) -> None:
    with graph.client() as client:
        for how, kind in ENDS.items():
            # a TaskGroup takes that for an end like any other
            if (name, how) == ("group", "cancelled"):
                continue
            after = len(graph.log)
            answer = client.post(f"/{name}", json=arguments(name, how))
            assert answer.status_code == 500, (how, answer.text)
            assert "Exits failed; the log says more" in answer.json()["detail"]
            graph.wait_log(rf"Exits.{name}: Exits raised ", after=after)
            graph.wait_log(kind.__name__, after=after)
            graph.wait_log(r"raise ENDS\[how\]", after=after)


def test_what_a_call_fails_with_is_told_once(graph: Served, beside: None) -> None:
    said = "a task or a callback raised SystemExit"
    with graph.client() as client:
        after = len(graph.log)
        for name in ("child", "group", "gathered"):
            assert client.post(f"/{name}", json={"how": "exit"}).status_code == 500
            graph.wait_log(rf"Exits.{name}: Exits raised ", after=after)
        assert client.post("/forgotten", json={"how": "exit"}).json() == 1
        graph.wait_log(said, after=after)  # a later one: those before it would be here by now
    assert "".join(graph.log[after:]).count(said) == 1


@pytest.mark.parametrize("name", ["child", "group", "gathered"])
def test_in_one_process_it_is_told_with_the_call_only(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(RemoteError):
        asyncio.run(ask(name, "exit"))
    assert "a task or a callback of an API raised" not in caplog.text


@pytest.mark.parametrize("in_body", [False, True])
@pytest.mark.parametrize("how", ["exit", "interrupt"])
def test_it_is_told_once_however_long_the_rest_of_its_group_takes(
    how: str, in_body: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endings, "UNTOLD_AFTER", 0.0)  # it is looked at in each turn of the loop

    async def main() -> None:
        async with graphserve.local(Exits) as exits:
            await exits.slow_group(how, in_body)

    with pytest.raises(RemoteError, match=ENDS[how].__name__):
        asyncio.run(main())
    assert "a task or a callback of an API raised" not in caplog.text


def test_it_is_told_with_the_call_also_where_that_fails_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(endings, "UNTOLD_AFTER", 60.0)
    told: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for exc in (SystemExit(1), KeyboardInterrupt()):
            endings.claim(exc)
            endings.raised(loop, exc, lambda: told.append("claimed"))
            endings.raised(loop, type(exc)(), lambda: told.append("not claimed"))
        endings.flush()

    asyncio.run(main())
    assert told == ["not claimed", "not claimed"]


def test_what_a_group_of_no_call_ends_with_is_told_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endings, "UNTOLD_AFTER", 0.0)

    async def main() -> None:
        async with graphserve.local(Exits) as exits:
            assert await exits.forgotten_group("exit") == 1

    asyncio.run(main())
    assert caplog.text.count("a task or a callback of an API raised") == 1


@pytest.mark.parametrize("name", BESIDE)
def test_what_nobody_awaits_ends_nobody(graph: Served, beside: None, name: str) -> None:
    with graph.client() as client:
        for how in ENDS:
            after = len(graph.log)
            assert client.post(f"/{name}", json={"how": how}).json() == 1
            if (name, how) not in {
                ("thread", "exit"),
                ("forgotten", "cancelled"),
            }:  # Python says nothing of these
                graph.wait_log(r"raise ENDS\[how\]", after=after)


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_that_has_begun_ends_with_the_error(
    graph: Served, beside: None, name: str
) -> None:
    with graph.client() as client:
        for how in ENDS:
            body = {"how": how, "items": 2}
            answer = client.post(f"/{name}", json=body, headers={"Accept": "text/event-stream"})
            assert answer.text.startswith(
                "id: 1\ndata: 0\n\nid: 2\ndata: 1\n\nevent: error\ndata: {"
            ), answer.text


def test_a_stream_that_is_left_ends_nobody(graph: Served, beside: None) -> None:
    with graph.client() as client:
        for how in ENDS:
            with client.stream("POST", "/closing", json={"how": how, "items": 10**6}) as answer:
                assert next(answer.iter_lines()) == "0"


@pytest.mark.parametrize("how", ["exit", *(rarely(how) for how in ENDS if how != "exit")])
def test_an_instance_that_leaves_so_does_not_spoil_the_stop(how: str) -> None:
    with served("tests.apps.exits:Leaving", cwd=Path.cwd(), env={"EXITS_HOW": how}) as graph:
        assert graph.stop() == 0
        assert LINES in graph.text
        assert "Leaving.__aexit__ raised" in graph.text


@pytest.mark.parametrize("name", ["fork", "fork_async", "fork_stream", "fork_sync_stream"])
def test_a_forked_child_ends_as_a_program(graph: Served, beside: None, name: str) -> None:
    with graph.client() as client:
        for way, code in {"exit": 7, "raise": 1, "return": 0}.items():
            after = len(graph.log)
            answer = client.post(f"/{name}", json={"way": way})
            assert (answer.status_code, answer.text.strip()) == (200, str(code)), way
            if way == "raise":
                graph.wait_log("ValueError: raised in the child", after=after)
            if way == "return":
                graph.wait_log(
                    r"a process that was forked in the API .*fork.* came back from it", after=after
                )


def test_a_forked_child_does_not_run_the_loop(graph: Served, beside: None) -> None:
    with graph.client() as client:
        assert client.post("/fork_and_wait", json={}).json() == 0


@pytest.mark.parametrize("graph", ["asyncio"], indirect=True)
def test_a_forked_child_ends_although_more_was_ready_in_its_loop(
    graph: Served, beside: None
) -> None:
    """What was ready is run in the child too, which has none of the sockets.

    (uvloop may abort such a child: it cannot watch what is no socket any more.)
    """
    after = len(graph.log)
    with graph.client() as client:
        for _ in range(5):
            port = client.base_url.port
            assert client.post("/fork_beside_a_client", json={"port": port}).json() == 0
    assert "Exception in callback" not in "".join(graph.log[after:])


# --- in one process ---


async def ask(name: str, how: str) -> Any:
    async with graphserve.local(Exits) as exits:
        call = getattr(exits, name)(**arguments(name, how))
        if name in STREAMS:
            return [item async for item in call]
        return await call


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("name", FAIL)
def test_in_one_process_too(name: str, how: str) -> None:
    if (name, how) == ("group", "cancelled"):
        return
    kind = "BaseExceptionGroup" if (name, how) == ("group", "closed") else ENDS[how].__name__
    with pytest.raises(RemoteError, match=f"Exits raised .*{kind}"):
        asyncio.run(ask(name, how))


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("name", BESIDE)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_in_one_process_nobody_else_ends(
    name: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert asyncio.run(ask(name, how)) == 1
    if name in ("soon", "later", "done"):
        assert LINES in caplog.text


def test_in_one_process_the_loop_is_left_as_it_was() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with graphserve.local(Exits) as first, graphserve.local(Exits):
            await first.pid()
        assert not {"call_soon", "call_later", "call_at", "call_soon_threadsafe"} & set(vars(loop))

    asyncio.run(main())


@pytest.mark.parametrize("how", ENDS)
def test_in_one_process_an_instance_may_leave_so(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXITS_HOW", how)

    async def main() -> None:
        async with graphserve.local(Leaving) as leaving:
            assert await leaving.run() == 1

    with pytest.raises(RuntimeError, match=f"raised {ENDS[how].__name__}"):
        asyncio.run(main())


@pytest.mark.parametrize("way, code", [("exit", 7), ("raise", 1), ("return", 0)])
@pytest.mark.parametrize("name", ["fork", "fork_async"])
def test_in_one_process_a_forked_child_ends(name: str, way: str, code: int) -> None:
    async def main() -> int:
        async with graphserve.local(Exits) as exits:
            return int(await getattr(exits, name)(way))

    here = os.getpid()
    assert asyncio.run(main()) == code
    assert os.getpid() == here


def test_a_hop_tells_its_caller() -> None:
    with served("tests.apps.exits:Top", cwd=Path.cwd()) as graph, graph.client() as client:
        for how in ENDS:
            answer = client.post("/plain", json={"how": how})
            assert (answer.status_code, answer.json()["service"]) == (502, "Exits")
            answer = client.post("/stream", json={"how": how, "items": 0})
            assert (answer.status_code, answer.json()["service"]) == (502, "Exits")
