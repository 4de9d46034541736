"""`local()`: the whole graph in this process, with the limits, deadlines and errors of real
ones.
"""

from __future__ import annotations

import abc
import asyncio
import contextvars
import dataclasses
import functools
import gc
import os
import re
import threading
import traceback
import warnings
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

import graphserve
from graphserve import (
    Batch,
    DeadlineExceeded,
    GraphServeError,
    InvalidArguments,
    Problem,
    RemoteError,
    Unavailable,
    api,
    depends,
    service,
)
from graphserve.errors import ConfigurationError, CycleError, GraphError, StartupError

pytestmark = pytest.mark.anyio
SECONDS = 20  # that anything here may take, on a loaded machine


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Gate:
    """Calls wait at it, and tell how many there are."""

    def __init__(self) -> None:
        self.inside = self.most = self.cancelled = 0
        self.opened = threading.Event()

    def enter(self) -> None:
        self.inside += 1
        self.most = max(self.most, self.inside)

    async def wait(self) -> None:
        self.enter()
        try:
            while not self.opened.is_set():  # noqa: ASYNC110
                await asyncio.sleep(0.001)  # between two looks at the condition
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.inside -= 1


gate = Gate()
variable = contextvars.ContextVar("variable", default="unset")


@pytest.fixture(autouse=True)
def new_gate() -> Any:
    global gate
    gate = Gate()
    yield gate
    gate.opened.set()


async def until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(SECONDS):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


@service
class Leaf:
    def __init__(self, factor: int = 1) -> None:
        self.factor = factor

    @api
    async def times(self, x: int) -> int:
        return x * self.factor

    @api
    def sync_times(self, x: int) -> int:
        return x * self.factor

    @api
    async def wait(self) -> int:
        await gate.wait()
        return 1

    @api
    def sync_wait(self) -> bool:
        gate.enter()
        while not gate.opened.wait(0.001) and not graphserve.cancelled():
            pass
        gate.inside -= 1
        gate.cancelled += graphserve.cancelled()
        return graphserve.cancelled()

    @api
    async def raises(self, status: int) -> int:
        if status:
            raise Problem(status, "Sorry")
        raise KeyError("a secret")

    @api
    async def left(self) -> float | None:
        return graphserve.deadline()

    @api
    async def seen(self) -> str:
        return variable.get()


@service
class Top:
    leaf = depends(Leaf)
    many = depends(Leaf, name="many", init={"factor": 10})
    http = depends(Leaf, client=httpx.AsyncClient)
    sync_http = depends(Leaf, client=httpx.Client)

    @api
    async def both(self, x: int) -> list[int]:
        return list(await asyncio.gather(self.leaf.times(x), self.many.times(x)))

    @api
    def blocking(self, x: int) -> int:
        return self.many.times(x).result()

    @api
    async def wait(self) -> int:
        return await self.leaf.wait()

    @api
    async def wrong(self) -> str:
        try:
            return str(self.leaf.times(1).result())
        except RuntimeError as exc:
            return str(exc)

    @api
    async def seen(self) -> list[str]:
        variable.set("caller")
        return [variable.get(), await self.leaf.seen()]

    @api
    async def raises(self, status: int) -> int:
        return await self.leaf.raises(status)

    @api(timeout=0.05)
    async def late(self) -> int:
        return await self.leaf.wait()

    @api
    async def ask(self, method: str, path: str, body: str, headers: dict[str, str]) -> list[Any]:
        answer = await self.http.request(method, path, content=body.encode(), headers=headers)
        return [answer.status_code, answer.headers["content-type"], answer.json()]

    @api
    def sync_ask(self, method: str, path: str, body: str, headers: dict[str, str]) -> list[Any]:
        answer = self.sync_http.request(method, path, content=body.encode(), headers=headers)
        return [answer.status_code, answer.headers["content-type"], answer.json()]

    @api
    async def block_by_http(self) -> str:
        try:
            return self.sync_http.get("/livez").text
        except RuntimeError as exc:
            return str(exc)


@service(concurrency=2, queue=3)
class Narrow:
    @api
    async def wait(self) -> int:
        await gate.wait()
        return 1

    @api
    async def add(self, x: int) -> int:
        return x + 1


# --- calls ---


async def test_a_graph_in_one_process() -> None:
    async with graphserve.local(Top) as top:
        assert await top.both(2) == [2, 20]
        assert await top.blocking(x=3) == 30
        assert repr(top) == "<client of Top>"


@pytest.fixture
async def running_leaf() -> AsyncIterator[Any]:
    async with graphserve.local(Leaf) as leaf:
        yield leaf


async def test_a_graph_as_an_async_fixture(running_leaf: Any) -> None:
    assert await running_leaf.times(3) == 3
    assert await running_leaf.sync_times(4) == 4


async def test_gather_task_groups_and_wait_for() -> None:
    async with graphserve.local(Leaf) as leaf:
        assert await asyncio.gather(*(leaf.times(x) for x in range(5))) == [0, 1, 2, 3, 4]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(leaf.times(x)) for x in range(3)]
        assert [task.result() for task in tasks] == [0, 1, 2]
        assert await asyncio.wait_for(leaf.times(7), SECONDS) == 7
        assert await asyncio.shield(leaf.sync_times(8)) == 8


async def test_a_call_is_sent_when_it_is_made() -> None:
    async with graphserve.local(Leaf) as leaf:
        calls = [leaf.wait() for _ in range(3)]
        await until(lambda: gate.inside == 3)
        gate.opened.set()
        assert [await call for call in calls] == [1, 1, 1]


async def test_result_on_the_loop_raises_at_once_with_the_fix() -> None:
    async with graphserve.local(Top) as top:
        assert (
            "write `await self.….times(...)` here, or make this API a plain `def`"
            in await top.wrong()
        )
        with pytest.raises(RuntimeError, match="would block the event loop"):
            top.wait().result()
        await until(lambda: gate.inside == 0)


async def test_result_in_threads() -> None:
    async with graphserve.local(Top) as top:
        assert await asyncio.to_thread(lambda: top.both(1).result(SECONDS)) == [1, 10]
        call = top.wait()
        await until(lambda: gate.inside == 1)
        with pytest.raises(TimeoutError) as caught:
            await asyncio.to_thread(lambda: call.result(0.01))
        assert not isinstance(caught.value, DeadlineExceeded)
        await until(lambda: gate.cancelled == 1)
        with pytest.raises(Problem, match="404 Sorry"):
            await asyncio.to_thread(lambda: top.raises(404).result(SECONDS))


async def test_awaiting_on_another_loop() -> None:
    async def elsewhere() -> list[int]:
        call = top.wait()
        await until(lambda: gate.inside == 1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(call, 0.01)
        return await top.both(4)

    async with graphserve.local(Top) as top:
        assert await asyncio.to_thread(asyncio.run, elsewhere()) == [4, 40]
        await until(lambda: gate.cancelled == 1)


async def test_a_dropped_call_is_cancelled_with_a_warning() -> None:
    async with graphserve.local(Leaf) as leaf:
        call = leaf.wait()
        await until(lambda: gate.inside == 1)
        with pytest.warns(
            RuntimeWarning,
            match=r"a call to Leaf\.wait was dropped without being awaited: cancelled",
        ):
            del call
            gc.collect()
        await until(lambda: gate.cancelled == 1)


async def test_cancelling_goes_all_the_way_down() -> None:
    async with graphserve.local(Top) as top:
        task = asyncio.ensure_future(top.wait())
        await until(lambda: gate.inside == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: gate.cancelled == 1)
        call = top.wait()
        await until(lambda: gate.inside == 1)
        assert call.cancel()
        await until(lambda: gate.cancelled == 2)
        assert not call.cancel(), "it is over"


async def test_a_sync_api_learns_that_it_was_cancelled() -> None:
    async with graphserve.local(Leaf) as leaf:
        call = leaf.sync_wait()
        await until(lambda: gate.inside == 1)
        call.cancel()
        await until(lambda: gate.cancelled == 1)
        assert await leaf.sync_times(3) == 3, "the slot is free again"


async def test_wrong_arguments_and_names() -> None:
    async with graphserve.local(Leaf) as leaf:
        with pytest.raises(InvalidArguments, match="x") as caught:
            await leaf.times("1")  # type: ignore[arg-type]
        assert (caught.value.node, caught.value.errors[0]["loc"]) == ("Leaf", ["x"])
        for call in (leaf.times(), leaf.times(1, 2), leaf.times(1, x=2), leaf.times(y=1)):  # type: ignore[call-arg]
            with pytest.raises(InvalidArguments):
                await call
        with pytest.raises(AttributeError, match="Leaf has no API 'tims'; did you mean 'times'"):
            leaf.tims(1)  # type: ignore[attr-defined]


async def test_the_cause_of_an_error_is_the_users_own_exception(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with graphserve.local(Top) as top:
        with pytest.raises(RemoteError, match="Leaf raised KeyError: 'a secret'") as caught:
            await top.raises(0)
        first: BaseException | None = caught.value
        while first is not None and first.__cause__ is not None:
            first = first.__cause__
        assert isinstance(first, KeyError) and first.__traceback__ is not None
        assert [record.exc_info for record in caplog.records] == [None], (
            "logged once, where it was raised, in a line"
        )


async def test_context_variables_do_not_cross() -> None:
    variable.set("outside")
    async with graphserve.local(Top) as top:
        assert await top.seen() == ["caller", "outside"]


# --- limits and deadlines ---


async def test_concurrency_and_a_full_queue() -> None:
    async with graphserve.local(Narrow) as narrow:
        calls = [asyncio.ensure_future(narrow.wait()) for _ in range(2 + 3)]
        await until(lambda: gate.inside == 2)
        with pytest.raises(Unavailable, match="the queue of Narrow is full") as caught:
            await narrow.wait()
        assert (caught.value.status, caught.value.node) == (503, "Narrow")
        calls[-1].cancel()  # a place in the queue
        waits = asyncio.ensure_future(narrow.add(1))
        gate.opened.set()
        assert await asyncio.gather(*calls[:-1], waits) == [1, 1, 1, 1, 2]
        assert gate.most == 2


async def test_many_waiting_calls_that_are_refused_or_late() -> None:
    """Each is ended when its turn comes: a thousand in a row nest nothing."""

    @service(concurrency=1)
    class One:
        @api
        async def wait(self) -> int:
            await gate.wait()
            return 1

        @api
        async def add(self, x: int) -> int:
            return x + 1

    async with graphserve.local(One) as one:
        first = one.wait()
        wrong = [asyncio.ensure_future(one.add("x")) for _ in range(1000)]  # type: ignore[arg-type]
        last = asyncio.ensure_future(one.add(1))
        await until(lambda: gate.inside == 1)
        gate.opened.set()
        assert await first == 1
        assert {type(error) for error in await asyncio.gather(*wrong, return_exceptions=True)} == {
            InvalidArguments
        }
        assert await last == 2


async def test_deadlines() -> None:
    async with graphserve.local(Top) as top:
        with pytest.raises(DeadlineExceeded) as caught:
            await top.late()
        assert caught.value.status == 504
        await until(lambda: gate.inside == 0)
    async with graphserve.local(Leaf) as leaf:
        left = await leaf.left()
        assert left is not None and 0 < left <= 60, "the entry's own"
    assert graphserve.deadline() is None


async def test_a_call_that_waits_past_its_deadline_is_not_executed() -> None:
    @service(concurrency=1)
    class One:
        @api
        async def wait(self) -> int:
            await gate.wait()
            return 1

        @api(timeout=0.02)
        async def short(self) -> int:
            await gate.wait()
            return 2

    async with graphserve.local(One) as one:
        first = one.wait()
        with pytest.raises(DeadlineExceeded, match="One"):
            await one.short()
        gate.opened.set()
        assert await first == 1
        assert gate.most == 1


# --- replace ---


class Fake:
    async def times(self, x: int) -> int:
        return -x

    def __getattr__(self, name: str) -> Any:
        return lambda **arguments: "sync"


class Stub:
    """An override with another life: made without arguments, and entered."""

    entered = False

    async def __aenter__(self) -> None:
        self.entered = True

    def times(self, x: int) -> int:
        return 1000 if self.entered else 0

    wait = sync_wait = sync_times = raises = left = seen = times


@service
class Other(Leaf):
    """An override that is a service has its own dependencies, and gets the `init`."""

    narrow = depends(Narrow)

    def __init__(self, factor: int = 5) -> None:
        self.factor = factor

    @api
    async def times(self, x: int) -> int:
        return await self.narrow.add(x) * self.factor


@pytest.mark.parametrize(
    ("override", "both"), [(Fake(), [-2, -2]), (Stub, [1000, 1000]), (Other, [15, 30])]
)
async def test_overrides(override: Any, both: list[int]) -> None:
    async with graphserve.local(Top, replace={Leaf: override}) as top:
        assert await top.both(2) == both


async def test_a_service_elsewhere_can_be_replaced() -> None:
    @service
    class Far:
        leaf = depends(Leaf, url="http://127.0.0.1:9")

        @api
        async def ask(self, x: int) -> int:
            return await self.leaf.times(x)

    async with graphserve.local(Far) as far:
        with pytest.raises(Unavailable, match=r"Leaf at http://127\.0\.0\.1:9 cannot be reached"):
            await far.ask(1)
    async with graphserve.local(Far, replace={Leaf: Fake()}) as far:
        assert await far.ask(1) == -1


@service
class Lacking:
    wait, sync_wait, raises, left, seen, sync_times = (
        Leaf.wait, Leaf.sync_wait, Leaf.raises, Leaf.left, Leaf.seen, Leaf.sync_times,
    )  # fmt: skip

    async def times(self, x: int) -> int:  # a method, but no API
        return x


async def test_what_is_awaited_has_to_be_awaitable() -> None:
    class Base:
        @api
        async def x(self) -> int:
            return 1

    @service
    class Enters(Base):
        def __aenter__(self) -> None: ...

    @service
    class Leaves(Base):
        def __aexit__(self, *exc: object) -> None: ...

    said = "is awaited, and returned None: write `async def __{0}__`, or `def __{1}__` for a thread"
    with pytest.raises(StartupError, match=said.format("aenter", "enter")):
        async with graphserve.local(Enters):
            pass
    with pytest.raises(TypeError, match=said.format("aexit", "exit")):
        async with graphserve.local(Leaves) as leaves:
            assert await leaves.x() == 1


async def test_a_service_elsewhere_may_be_of_any_class() -> None:
    @service
    class Remote:
        @api
        async def times(self, x: int) -> list[int]:
            return [x]

    @service
    class Far:
        remote = depends(Remote, url="http://127.0.0.1:9")

        @api
        async def ask(self, x: int) -> list[int]:
            return await self.remote.times(x)

    async with graphserve.local(Far) as far:
        with pytest.raises(Unavailable, match="Remote cannot be reached"):
            await far.ask(1)
    async with graphserve.local(Far, replace={Remote: Remote}) as far:
        assert await far.ask(1) == [1]


@pytest.mark.parametrize(
    ("replace", "says"),
    [
        ({Narrow: Fake()}, "Narrow is no class of this graph; its services are Leaf, Top"),
        (
            {"Leaf": Fake()},
            (
                r"'Leaf' is no class: write \{Class: its override\}; its services are"
                r" Leaf, Top"
            ),
        ),
        ({Leaf: object()}, "object overrides Leaf, but has no method 'times'"),
        ({Leaf: Lacking}, "Lacking overrides Leaf, but has no API 'times': .* with @api"),
    ],
)
async def test_overrides_that_cannot_work(replace: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        async with graphserve.local(Top, replace=replace):
            pass


async def test_other_uses_say_how_to_enter_it() -> None:
    graph: Any = graphserve.local(Leaf)
    with pytest.raises(TypeError, match=r"write `async with local\(Leaf\) as …:`"), graph:
        pass
    with pytest.raises(
        AttributeError, match=r"local\(Leaf\) has no 'times': write `async with local\(Leaf\)"
    ):
        await graph.times(1)
    with pytest.raises(AttributeError, match="_there"):
        graph._there  # noqa: B018
    async with graph as leaf:
        assert await leaf.times(1) == 1


async def test_an_override_whose_result_does_not_fit() -> None:
    class Wrong:
        times = sync_times = wait = sync_wait = raises = left = seen = lambda self, x: "a string"

    async with graphserve.local(Leaf, replace={Leaf: Wrong()}) as leaf:
        with pytest.raises(RemoteError, match="does not fit its annotation"):
            await leaf.times(1)


# --- life ---


class Diary:
    lines: list[str] = []

    def __init__(self) -> None:
        self.note("init")

    async def __aenter__(self) -> None:
        self.note("enter")

    async def __aexit__(self, *exc: object) -> None:
        self.note("exit")

    def note(self, what: str) -> None:
        self.lines.append(f"{what} {type(self).__name__}")

    @api
    async def ok(self) -> int:
        return 1


@pytest.fixture
def diary() -> list[str]:
    Diary.lines.clear()
    return Diary.lines


@service
class Low(Diary):
    pass


@service
class High(Diary):
    low = depends(Low)

    async def __aexit__(self, *exc: object) -> None:
        assert await self.low.ok() == 1, "a dependency answers until its callers have left"
        self.note("exit")


def failing(step: str, error: BaseException) -> type:
    def fail(self: Any, *exc: Any) -> None:
        raise error

    async def fail_async(self: Any, *exc: Any) -> None:
        raise error

    body = {
        "low": depends(Low),
        step: fail if step in ("__init__", "__enter__", "__new__") else fail_async,
    }
    return service(name="Failing")(type("Failing", (Diary,), body))


@pytest.mark.parametrize(
    ("step", "error"),
    [
        ("__new__", ValueError("no")),
        ("__init__", ValueError("no")),
        ("__init__", SystemExit(3)),
        ("__init__", StopIteration()),
        ("__aenter__", ValueError("no")),
    ],
)
async def test_a_failed_start_stops_what_was_started(
    diary: list[str], step: str, error: BaseException
) -> None:
    threads = threading.active_count()
    with pytest.raises(StartupError, match=rf"Failing\.{step} raised") as caught:
        async with graphserve.local(failing(step, error)):
            raise AssertionError("not reached")
    assert caught.value.node == "Failing"
    assert "raise error" in caught.value.log and "graphserve/worker" not in caught.value.log
    assert [line for line in diary if "Low" in line] == ["init Low", "enter Low", "exit Low"]
    assert "exit Failing" not in diary, "what was not entered is not left"
    await until(lambda: threading.active_count() <= threads)


async def test_all_are_left_even_if_one_raises(diary: list[str]) -> None:
    with pytest.raises(ValueError, match="no") as caught:
        async with graphserve.local(failing("__aexit__", ValueError("no"))):
            pass
    assert not isinstance(caught.value, ExceptionGroup)
    assert diary[-1] == "exit Low"


async def test_a_slow_start_is_given_up() -> None:
    @service(startup_timeout=0.5)
    class Slow:
        async def __aenter__(self) -> None:
            await asyncio.Event().wait()

        @api
        async def x(self) -> int:
            return 1

    with pytest.raises(
        StartupError, match=r"Slow was not ready 0\.5 s after it began to start"
    ) as caught:
        async with graphserve.local(Slow):
            pass
    assert re.match(
        r"Stack .*\n.*test_local.py\", line \d+, in __aenter__\n    await asyncio.Event",
        caught.value.log,
    )


async def test_a_slow_init_says_where_it_is() -> None:
    going = threading.Event()

    @service(startup_timeout=0.5)
    class Slow:
        def __init__(self) -> None:
            going.wait()

        @api
        async def x(self) -> int:
            return 1

    try:
        with pytest.raises(StartupError, match="Slow was not ready") as caught:
            async with graphserve.local(Slow):
                pass
        assert re.match(
            r"Stack .*\n.*test_local.py\", line \d+, in __init__\n    going.wait", caught.value.log
        )
    finally:
        going.set()


async def test_who_does_not_leave_is_given_up_after_its_graceful_timeout(diary: list[str]) -> None:
    @service(graceful_timeout=0.02)
    class Stays:
        low = depends(Low)

        async def __aexit__(self, *exc: object) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                diary.append(f"cancelled {await self.low.ok()}")

        @api
        async def x(self) -> int:
            return 1

    with pytest.warns(
        RuntimeWarning, match=r"Stays had not left \(__aexit__\) after 0\.02 s: cancelled"
    ):
        async with asyncio.timeout(10), graphserve.local(Stays) as stays:
            assert await stays.x() == 1
    assert diary[-2:] == ["cancelled 1", "exit Low"]


async def test_a_thread_that_does_not_leave_is_left_behind() -> None:
    going = threading.Event()

    @service(graceful_timeout=0.02)
    class Stays:
        def __enter__(self) -> None: ...

        def __exit__(self, *exc: object) -> None:
            going.wait()

        @api
        async def x(self) -> int:
            return 1

    try:
        with pytest.warns(
            RuntimeWarning,
            match=r"Stays had not left \(__exit__\) after 0\.02 s: its thread goes on",
        ):
            async with asyncio.timeout(10), graphserve.local(Stays) as stays:
                assert await stays.x() == 1
    finally:
        going.set()


async def test_a_timeout_of_its_own_while_leaving_is_raised() -> None:
    with pytest.raises(TimeoutError, match="mine"):
        async with graphserve.local(failing("__aexit__", TimeoutError("mine"))):
            pass


async def test_leaving_answers_what_was_accepted(diary: list[str]) -> None:
    async with graphserve.local(Top) as top:
        task = asyncio.ensure_future(top.wait())
        await until(lambda: gate.inside == 1)
        asyncio.get_running_loop().call_later(0.01, gate.opened.set)
    assert await task == 1
    with pytest.raises(Unavailable, match="Top has stopped"):
        await top.both(1)
    async with graphserve.local(High) as high:
        assert await high.ok() == 1
    assert diary == ["init Low", "enter Low", "init High", "enter High", "exit High", "exit Low"]


async def test_an_exception_in_the_block_cancels_what_runs() -> None:
    with pytest.raises(ZeroDivisionError):
        async with graphserve.local(Top) as top:
            task = asyncio.ensure_future(top.wait())
            await until(lambda: gate.inside == 1)
            raise ZeroDivisionError
    with pytest.raises(Unavailable, match="Top has stopped"):
        await task
    assert gate.cancelled == 1


def plain_wrapper(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


@service
class Unusual(abc.ABC):  # noqa: B024
    """Made by `__new__`, decorated twice, calling itself."""

    def __new__(cls, base: int = 1) -> Unusual:
        self = super().__new__(cls)
        self.base = base  # type: ignore[attr-defined]
        return self

    @plain_wrapper
    @api
    async def inner(self, x: int) -> int:
        return x + self.base  # type: ignore[attr-defined, no-any-return]

    @api
    @plain_wrapper
    async def outer(self, x: int) -> int:
        return await self.inner(x) + 10  # type: ignore[no-any-return]

    @plain_wrapper
    @api
    def sync(self, x: int) -> int:
        return x


async def test_wrapped_apis_and_calls_of_oneself() -> None:
    @service
    class Caller:
        unusual = depends(Unusual, init={"base": 5})

        @api
        async def ask(self) -> list[int]:
            return [
                await self.unusual.inner(1),
                await self.unusual.outer(1),
                await self.unusual.sync(1),
            ]

    async with graphserve.local(Caller) as caller:
        assert await caller.ask() == [6, 16, 1]


async def test_several_graphs_at_once_and_nothing_is_left() -> None:
    async def one(factor: int) -> list[int]:
        async with graphserve.local(Top) as top:
            return await top.both(factor)

    await one(1)
    gc.collect()
    before = (len(os.listdir("/proc/self/fd")), threading.active_count())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert await asyncio.gather(*(one(x) for x in range(10))) == [
            [x, 10 * x] for x in range(10)
        ]
        gc.collect()
    await until(lambda: (len(os.listdir("/proc/self/fd")), threading.active_count()) <= before)


def test_a_graph_per_run_of_a_loop() -> None:
    async def one() -> int:
        async with graphserve.local(Leaf) as leaf:
            return await leaf.sync_times(4)

    assert [asyncio.run(one()) for _ in range(3)] == [4, 4, 4]


# --- httpx clients ---

JSON = {"content-type": "application/json"}
REQUESTS = [
    ("POST", "/times", '{"x": 3}', JSON, 200, 3),
    (
        "POST",
        "/times?q=1",
        '{"x": 3}',
        {},
        422,
        "reads no query, and this URL has one: send arguments as JSON in the body",
    ),
    ("POST", "/times?", '{"x": 3}', {}, 200, 3),
    ("POST", "/times", '{"x": "3"}', JSON, 422, "x"),
    ("POST", "/times", "{", JSON, 400, "not valid JSON"),
    ("POST", "/times", "x", {"content-type": "image/png"}, 415, "image/png"),
    ("POST", "/raises", '{"status": 409}', JSON, 409, None),
    ("POST", "/raises", '{"status": 0}', JSON, 502, "KeyError"),
    ("POST", "/left", "{}", JSON | {"x-request-timeout": "soon"}, 400, "seconds"),
    ("POST", "/nothing", "{}", JSON, 404, "there is no API at /nothing"),
    ("GET", "/times", "", {}, 405, "takes POST"),
    ("GET", "/livez", "", {}, 200, {"status": "ok", "service": "Leaf"}),
    ("GET", "/readyz", "", {}, 200, {"status": "ready", "service": "Leaf"}),
]


@pytest.mark.parametrize(("method", "path", "body", "headers", "status", "says"), REQUESTS)
async def test_httpx_clients(
    method: str, path: str, body: str, headers: dict[str, str], status: int, says: Any
) -> None:
    async with graphserve.local(Top) as top:
        for call in (top.ask, top.sync_ask):
            found, content_type, answer = await call(method, path, body, headers)
            assert found == (500 if status == 502 else status)
            if found == 200:
                assert answer == says
            else:
                assert content_type == "application/problem+json"
                assert answer["service"] == "Leaf" and answer["request_id"]
                assert says is None or says in answer["detail"]


async def test_an_httpx_client_on_the_loop_says_so() -> None:
    async with graphserve.local(Top) as top:
        assert "httpx.Client would block the event loop" in await top.block_by_http()


# --- what people do wrong ---


async def test_no_service_and_no_class() -> None:
    class Plain:
        pass

    for wrong in (Plain, "m:C", Leaf()):
        with pytest.raises(
            GraphServeError, match="is not a service: decorate its class with @service"
        ):
            graphserve.local(wrong)  # type: ignore[arg-type]


async def test_a_cycle_prints_its_path(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "circle_of_two.py").write_text(
        "from graphserve import api, depends, service\n\n\n"
        "@service\n"
        "class A:\n"
        "    b = depends('circle_of_two:B')\n\n"
        "    @api\n"
        "    async def x(self) -> int: ...\n\n\n"
        "@service\n"
        "class B:\n"
        "    a = depends(A)\n\n"
        "    @api\n"
        "    async def x(self) -> int: ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import circle_of_two  # type: ignore[import-not-found]

    with pytest.raises(CycleError, match=r"A → B \(.*\) → A \(.*\)\. Remove") as caught:
        graphserve.local(circle_of_two.A)
    file = tmp_path / "circle_of_two.py"
    assert (caught.value.path, caught.value.places) == (
        ("A", "B", "A"),
        (f"{file}:6", f"{file}:14"),
    )


async def test_two_nodes_of_one_name() -> None:
    @service
    class Twice:
        a = depends(Leaf)
        b = depends(Leaf, init={"factor": 2})

        @api
        async def x(self) -> int:
            return 1

    with pytest.raises(
        GraphError, match=r"two nodes have the name 'Leaf' but not the same init .* name=\"…\""
    ):
        graphserve.local(Twice)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"__abstractmethods__": frozenset({"z"})}, "Wrong is abstract: it does not define z"),
        ({"__init__": lambda self, k: None}, "missing a required argument: 'k'; it takes k"),
    ],
)
async def test_classes_that_cannot_be_made(body: dict[str, Any], says: str) -> None:
    wrong = service(name="Wrong")(
        abc.ABCMeta("Wrong", (Diary,), {"__init__": body.get("__init__", Diary.__init__)})
    )
    if "__abstractmethods__" in body:
        wrong.__abstractmethods__ = body["__abstractmethods__"]  # type: ignore[attr-defined]
    with pytest.raises(GraphError, match=says):
        graphserve.local(wrong)


@pytest.mark.parametrize(
    ("init", "says"),
    [
        ({"fctor": 2}, r"Scaled\.__init__: unknown argument 'fctor'; did you mean 'factor'\?"),
        ({"factor": 2, "zzz": 1}, r"Scaled\.__init__: unknown argument 'zzz'; it takes factor"),
    ],
)
async def test_an_init_that_is_misspelt(init: dict[str, Any], says: str) -> None:
    @service
    class Scaled:
        def __init__(self, factor: int) -> None: ...

        @api
        async def x(self) -> int:
            return 1

    @service
    class Entry:
        scaled = depends(Scaled, init=init)

        @api
        async def x(self) -> int:
            return 1

    with pytest.raises(GraphError, match=says):
        graphserve.local(Entry)


async def test_a_dependency_that_is_a_field_of_a_dataclass() -> None:
    @service
    @dataclasses.dataclass
    class Wrong:
        leaf: Any = depends(Leaf)  # noqa: RUF009

        @api
        async def x(self) -> int:
            return 1

    with pytest.raises(GraphError, match=r"Wrong\.leaf = depends\(…\) is a field of the dataclass"):
        graphserve.local(Wrong)


async def test_a_dependency_in_init_is_no_edge() -> None:
    @service
    class Wrong:
        def __init__(self) -> None:
            self.leaf = depends(Leaf)

        @api
        async def x(self) -> int:
            return 1

    @service
    class WrongToo:
        async def __aenter__(self) -> None:
            self.leaf = graphserve.depends(Leaf)

        @api
        async def x(self) -> int:
            return 1

    for cls, method in ((Wrong, "__init__"), (WrongToo, "__aenter__")):
        words = (
            rf"{cls.__name__}\.{method} \({__file__}:\d+\) calls depends\(…\), .* in the body of"
            r" the class"
        )
        with pytest.raises(GraphError, match=words):
            graphserve.local(cls)


async def test_an_instance_made_by_hand_says_what_to_do() -> None:
    with pytest.raises(GraphServeError, match=r"graphserve\.local\(Top\)"):
        await Top().both(1)


@service
class Counting:
    @api(batch=Batch(max_size=4))
    def double(self, numbers: list[int]) -> list[int]:
        return [number * 2 for number in numbers]

    @api(batch=Batch(max_size=4))
    def add(self, left: list[int], right: list[int]) -> list[int]:
        return [a + b for a, b in zip(left, right, strict=True)]


async def test_a_batched_api_called_wrongly_keeps_no_slot() -> None:
    async with asyncio.timeout(20), graphserve.local(Counting) as counting:
        with pytest.raises(InvalidArguments):
            await counting.double("x")  # type: ignore[arg-type]
        with pytest.raises(InvalidArguments):
            await counting.add([1, 2], [3])
        assert await counting.double([1]) == [2]
        assert await counting.add([1], [2]) == [3]


@service
class Failing:
    @api
    async def fails(self) -> int:
        try:
            raise KeyError("first")
        except KeyError as exc:
            raise ValueError("then") from exc

    @api
    def in_a_thread(self) -> int:
        raise SystemExit(3)

    @api
    async def items(self) -> AsyncIterator[int]:
        yield 1
        raise ValueError("in a stream")


@service
class Asking:
    failing = depends(Failing)

    @api
    async def fails(self) -> int:
        return await self.failing.fails()

    @api
    def in_a_thread(self) -> int:
        return self.failing.in_a_thread().result()

    @api
    async def items(self) -> int:
        return sum([item async for item in self.failing.items()])


@pytest.mark.parametrize("name", ["fails", "in_a_thread", "items"])
async def test_an_error_is_logged_once_in_a_line_and_its_traceback_is_all_user_code(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with graphserve.local(Asking) as asking:
        with pytest.raises(RemoteError) as caught:
            await getattr(asking, name)()
    (record,) = caplog.records
    assert record.name == "graphserve.calls" and record.getMessage().startswith(
        f"Failing.{name}: Failing raised "
    )
    assert record.exc_info is None, "the caller has the traceback"
    error: BaseException | None = caught.value.__cause__
    places = []
    while error is not None:
        frames = traceback.extract_tb(error.__traceback__)
        places.append([frame.name for frame in frames])
        assert {frame.filename for frame in frames} <= {__file__}
        error = error.__cause__
    assert places[0][0] == places[-1][0] == name
