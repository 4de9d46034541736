"""What warms an instance up: it runs once in each worker, after it is entered and before it is
ready.
"""

from __future__ import annotations

import asyncio
import re
import threading
from typing import Any

import pytest

import graphserve
from graphserve import api, depends, service
from graphserve.errors import StartupError
from tests.harness import Served, served


@service
class Leaf:
    @api
    async def echo(self, text: str) -> str:
        return text


class Steps:
    """Notes what happens to an instance."""

    def __init__(self) -> None:
        self.steps = ["init"]
        self.thread = threading.current_thread()

    async def __aenter__(self) -> None:
        self.steps.append("enter")

    async def __aexit__(self, *exc: object) -> None:
        left.append(type(self).__name__)

    @api
    async def seen(self) -> list[str]:
        return self.steps


left: list[str] = []


@service
class Own(Steps):
    leaf = depends(Leaf)

    async def __warm_up__(self) -> None:
        self.steps.append(await self.leaf.echo("warm"))


@service(warm_up="prime")
class Named(Steps):
    leaf = depends(Leaf)

    def prime(self, rounds: int = 2) -> None:
        assert threading.current_thread() is not threading.main_thread()
        self.steps += [self.leaf.echo("primed").result() for _ in range(rounds)]


def plainly(method: Any) -> Any:
    """A decorator that hides that a method is async."""

    def call(self: Any) -> Any:
        return method(self)

    return call


@service(warm_up="prime")
class Decorated(Steps):
    @plainly
    async def prime(self) -> None:
        await asyncio.sleep(0)
        self.steps.append("decorated")


@service(warm_up="seen")
class ByAnApi(Steps):
    @api
    async def seen(self) -> list[str]:
        self.steps.append("seen")
        return self.steps


@service
class Inherits(Own): ...


class Fake:
    def __init__(self) -> None:
        self.steps = ["fake"]

    async def __warm_up__(self) -> None:
        self.steps.append("warm")

    async def seen(self) -> list[str]:
        return self.steps


@service
class Top:
    own = depends(Own)

    @api
    async def seen(self) -> list[str]:
        return await self.own.seen()


@pytest.mark.parametrize(
    ("cls", "steps"),
    [
        (Own, ["init", "enter", "warm"]),
        (Named, ["init", "enter", "primed", "primed"]),
        (Decorated, ["init", "enter", "decorated"]),
        (ByAnApi, ["init", "enter", "seen", "seen"]),
        (Inherits, ["init", "enter", "warm"]),
    ],
)
def test_one_process(cls: type[Steps], steps: list[str]) -> None:
    async def main() -> None:
        async with graphserve.local(cls) as entry:
            assert await entry.seen() == steps

    asyncio.run(main())


def test_an_override_is_warmed_up_too() -> None:
    async def main() -> None:
        async with graphserve.local(Top, replace={Own: Fake}) as top:
            assert await top.seen() == ["fake", "warm"]

    asyncio.run(main())


@service
class Breaks(Steps):
    async def __warm_up__(self) -> None:
        raise ValueError("no GPU")


@service(startup_timeout=0.2)
class TooLong(Steps):
    async def __warm_up__(self) -> None:
        await asyncio.Event().wait()


def test_one_that_raises_fails_the_start_and_is_left() -> None:
    async def main() -> None:
        async with graphserve.local(Breaks):
            pass

    left.clear()
    with pytest.raises(StartupError, match=r"Breaks.__warm_up__ raised ValueError: no GPU"):
        asyncio.run(main())
    assert left == ["Breaks"], "it had been entered"


def test_it_counts_for_startup_timeout() -> None:
    async def main() -> None:
        async with graphserve.local(TooLong):
            pass

    with pytest.raises(StartupError, match=r"was not ready 0\.2 s after it began .*startup_tim"):
        asyncio.run(main())


def test_processes_show_it_and_are_ready_after_it() -> None:
    with served("warming:Top", "--log-level", "info") as graph, graph.client() as client:
        assert client.post("/steps").json() == ["init", "enter", "warm: ready below"]
        lines = [line for line in graph.log if "graphserve  Model" in line]
        assert [re.sub(r"\S+ +graphserve +|\d+\.\d\d", "", line).strip() for line in lines] == [
            "Model starting  0/1 worker   s",
            "Model warming up  0/1 worker   s",
            "Model ready  1/1 worker   s",
        ]


def test_a_failed_one_fails_the_start() -> None:
    graph = Served("warming:Broken")
    try:
        assert graph.wait_exit() == 3
        assert graph.text.rstrip().endswith("RuntimeError: the kernels do not compile")
        assert "Broken.prime raised RuntimeError" in graph.text
        assert any(line.endswith(" left\n") for line in graph.out)
        assert not graph.workers()
    finally:
        graph.close()


def test_one_that_hangs_says_where() -> None:
    graph = Served("warming:Hangs", "--set", "Hangs.startup_timeout=0.5")
    try:
        assert graph.wait_exit() == 3
        assert re.search(r"Stack .*:\n.*line \d+, in __warm_up__\n", graph.text)
    finally:
        graph.close()
