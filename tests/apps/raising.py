"""Services whose APIs raise, each in its own way, and one that calls them: here, and where they run
elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator

from graphserve import Batch, api, depends, service


@service
class Raising:
    @api
    async def plain(self) -> int:
        raise ValueError("it is raised")

    @api
    async def chained(self) -> int:
        try:
            raise KeyError("first")
        except KeyError as exc:
            raise ValueError("then") from exc

    @api
    def threaded(self) -> int:
        raise ExceptionGroup("several", [ValueError("one"), OSError("two")])

    @api
    def exits(self) -> int:
        raise SystemExit(3)

    @api(batch=Batch(max_size=2))
    def batched(self, numbers: list[int]) -> list[int]:
        raise OSError("in a batch")

    @api
    async def stream(self) -> AsyncIterator[int]:
        yield 1
        raise OSError("in a stream")

    @api
    def generator(self) -> Iterator[int]:
        yield 1
        raise OSError("in a generator")


@service
class Asking:
    near = depends(Raising)
    far = depends(Raising, name="Far", url=os.environ.get("RAISING_URL", "http://127.0.0.1:1"))

    @api
    async def ask(self, name: str, where: str) -> int:
        other = getattr(self, where)
        if name in ("stream", "generator"):
            return sum([item async for item in getattr(other, name)()])
        arguments = [[1]] if name == "batched" else []
        answer = await getattr(other, name)(*arguments)
        return int(answer)

    @api
    def ask_in_a_thread(self, name: str, where: str) -> int:
        answer = getattr(getattr(self, where), name)().result()
        return int(answer)


def fails() -> None:
    try:
        raise KeyError("first")
    except KeyError as exc:
        raise ValueError("then") from exc


@service
class FailsInInit:
    def __init__(self) -> None:
        fails()

    @api
    async def x(self) -> None: ...


@service
class FailsInEnter:
    async def __aenter__(self) -> None:
        fails()

    async def __aexit__(self, *exc: object) -> None: ...

    @api
    async def x(self) -> None: ...


@service
class FailsInExit(FailsInEnter):
    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *exc: object) -> None:
        fails()


@service
class WrongInit:
    def __init__(self, *, needed: int) -> None: ...

    @api
    async def x(self) -> None: ...


if os.environ.get("RAISING_AT_IMPORT"):
    fails()
