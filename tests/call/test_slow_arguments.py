"""Arguments and results that take long to write, such as pictures, are written in a thread: the loop
goes on meanwhile, and the call can end in every way that others can.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

import graphserve
from graphserve import Batch, api, depends, service
from graphserve.wire.media.images import SMALL
from tests.harness import APPS, served

LARGE = SMALL, 2


class Watched(Image.Image):
    """A picture that says where it is written."""

    def __init__(self, size: tuple[int, int], on_load: Callable[[], None]) -> None:
        super().__init__()
        picture = Image.new("L", size)
        self.im = picture.im
        self._mode = "L"
        self._size = size
        self.on_load = on_load

    def load(self) -> Any:
        self.on_load()
        return super().load()


@service
class Measure:
    @api
    async def width(self, image: Image.Image, times: int = 1) -> int:
        return image.width * times

    @api
    async def widths(self, images: list[Image.Image]) -> list[int]:
        return [image.width for image in images]


written_in: list[int] = []  # the threads in which results were written


def result(size: tuple[int, int]) -> Image.Image:
    return Watched(size, lambda: written_in.append(threading.get_ident()))


@service
class Make:
    @api
    async def picture(self, size: tuple[int, int]) -> Image.Image:
        written_in.clear()
        graphserve.request().answer.status = 201  # which no service is told
        return result(size)

    @api(batch=Batch(max_size=2, max_wait=0))
    async def pictures(self, sizes: list[tuple[int, int]]) -> list[Image.Image]:
        written_in.clear()
        return [result(size) for size in sizes]

    @api
    async def on_loop(self) -> bool:
        assert written_in
        return threading.get_ident() in written_in


@service
class Gateway:
    make = depends(Make)
    measure = depends(Measure, timeout=60.0)
    brief = depends(Measure, timeout=0.05)

    @api
    async def where(self, size: tuple[int, int], in_list: bool = False) -> bool:
        """Whether a picture is written on the loop."""
        threads: list[int] = []
        image = Watched(size, lambda: threads.append(threading.get_ident()))
        if in_list:
            assert await self.measure.widths([image]) == [size[0]]
        else:
            assert await self.measure.width(image, times=2) == 2 * size[0]
        return threading.get_ident() in threads

    @api
    async def where_result(self, size: tuple[int, int], batched: bool = False) -> bool:
        """Whether a result is written on the loop."""
        if batched:
            (picture,) = await self.make.pictures([size])
        else:
            picture = await self.make.picture(size)
        assert picture.size == size
        return await self.make.on_loop()

    @api
    async def late(self) -> str:
        released = threading.Event()
        image = Watched(LARGE, lambda: released.wait(60) and None)
        try:
            await self.brief.width(image)
        except graphserve.DeadlineExceeded as exc:
            return str(exc)
        finally:
            released.set()
        return ""

    @api
    async def cancelled(self) -> bool:
        begun, released = threading.Event(), threading.Event()

        def wait() -> None:
            begun.set()
            released.wait(60)

        call = self.measure.width(Watched(LARGE, wait))
        await asyncio.to_thread(begun.wait, 60)
        call.cancel()
        released.set()
        with pytest.raises(asyncio.CancelledError):
            await call
        return await self.measure.width(Image.new("L", LARGE)) == LARGE[0]  # (the thread is free)

    @api
    async def broken(self, what: str) -> str:
        def fail() -> None:
            raise {"file": OSError, "memory": MemoryError, "value": ValueError}[what](
                "it is broken"
            )

        try:
            await self.measure.width(Watched(LARGE, fail))
        except Exception as exc:
            return type(exc).__name__
        return ""

    @api
    async def misfits(self) -> list[str]:
        image = Image.new("L", LARGE)
        found = []
        for call in (
            lambda: self.measure.width(image, 1, 2),  # type: ignore[call-arg]
            lambda: self.measure.width(image, times="x"),  # type: ignore[arg-type]
            lambda: self.measure.width(image, times=object()),  # type: ignore[arg-type]
        ):
            try:
                await call()
            except graphserve.InvalidArguments as exc:
                found.append(str(exc.errors[0]["loc"]))
        return found


@pytest.mark.anyio
async def test_a_large_picture_is_written_in_a_thread() -> None:
    async with graphserve.local(Gateway) as gateway:
        assert [await gateway.where(size) for size in ((9, 9), LARGE)] == [True, False]
        assert [await gateway.where(size, in_list=True) for size in ((9, 9), LARGE)] == [
            False,
            False,
        ]
        assert "did not answer before the deadline" in await gateway.late()
        assert await gateway.cancelled()
        broken = [await gateway.broken(what) for what in ("file", "memory", "value")]
        assert broken == ["OSError", "Unavailable", "InvalidArguments"]
        assert await gateway.misfits() == ["[]", "['times']", "['times']"]


def test_the_same_in_processes() -> None:
    graph = served("tests.call.test_slow_arguments:Gateway", cwd=APPS.parent.parent)
    with graph as running, running.client() as client:

        def post(name: str, **arguments: object) -> Any:
            return client.post(f"/{name}", json=arguments).json()

        assert [post("where", size=size) for size in ((9, 9), LARGE)] == [True, False]
        assert [post("where_result", size=size) for size in ((9, 9), LARGE)] == [True, False]
        assert post("where_result", size=LARGE, batched=True) is False
        assert "did not answer before the deadline" in post("late")
        assert post("cancelled") is True
        assert [post("broken", what=what) for what in ("file", "memory", "value")] == [
            "OSError", "Unavailable", "InvalidArguments",
        ]  # fmt: skip
        assert post("misfits") == ["[]", "['times']", "['times']"]
