"""APIs whose results are not quite what they promise: asked over HTTP, by a hop, and in one
process.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import numpy as np
import pydantic
from numpy.typing import NDArray

from graphserve import Batch, GraphServeError, api, depends, service
from graphserve.errors import CallError


@dataclass
class Box:
    left: int


class Item(pydantic.BaseModel):
    count: Annotated[int, pydantic.Field(ge=0)] = 0


class Struct(msgspec.Struct):
    values: list[float]


GIVEN: dict[str, tuple[Any, Any]] = {  # API: what it returns when it is right, and when it is not
    "text": ("a", 3),
    "number": (1, "1"),
    "truth": (True, 1),
    "nothing": (None, 0),
    "numbers": ([1, 2.5], np.array([1.0])),
    "nested": ([[1.0]], [np.array([1.0])]),
    "zero": ([1.0], np.array(1.0)),
    "array": (np.array([1], "f4"), np.array([1])),
    "box": (Box(1), Box("a")),  # type: ignore[arg-type]
    "item": (Item(count=1), Item.model_construct(count=-1)),
    "struct": (Struct([1.0]), Struct(["a"])),  # type: ignore[list-item]
    "mapping": ({"a": [1]}, {"a": ["b"]}),
    "bounded": (1, -1),
    "maybe": (None, "a"),
    "batched": ([1, 2], np.array([1, 2])),
}

STREAMS = ("stream", "stream_in_thread")
ELSEWHERE = os.environ.get("RESULTS_URL", "http://127.0.0.1:9")


@service
class Results:
    @api
    async def text(self, wrong: bool) -> str:
        return give("text", wrong)

    @api
    async def number(self, wrong: bool) -> float:
        return give("number", wrong)

    @api
    def truth(self, wrong: bool) -> bool:
        return give("truth", wrong)

    @api
    async def nothing(self, wrong: bool) -> None:
        return give("nothing", wrong)

    @api
    async def numbers(self, wrong: bool) -> list[float]:
        return give("numbers", wrong)

    @api
    async def nested(self, wrong: bool) -> list[list[float]]:
        return give("nested", wrong)

    @api
    async def zero(self, wrong: bool) -> list[float]:
        return give("zero", wrong)

    @api
    async def array(self, wrong: bool) -> NDArray[np.float32]:
        return give("array", wrong)

    @api
    async def box(self, wrong: bool) -> Box:
        return give("box", wrong)

    @api
    async def item(self, wrong: bool) -> Item:
        return give("item", wrong)

    @api
    async def struct(self, wrong: bool) -> Struct:
        return give("struct", wrong)

    @api
    async def mapping(self, wrong: bool) -> dict[str, list[int]]:
        return give("mapping", wrong)

    @api
    async def bounded(self, wrong: bool) -> Annotated[int, msgspec.Meta(ge=0)]:
        return give("bounded", wrong)

    @api
    async def maybe(self, wrong: bool) -> int | None:
        return give("maybe", wrong)

    @api(batch=Batch(max_size=2, max_wait=0.001))
    def batched(self, wrong: list[bool]) -> list[int]:
        return give("batched", wrong[0])

    @api
    async def stream(self, wrong: bool) -> AsyncIterator[str]:
        yield give("text", wrong)

    @api
    def stream_in_thread(self, wrong: bool) -> Iterator[str]:
        yield give("text", wrong)


@service
class Asks:
    """Calls them in every way in which a service is called."""

    typed = depends(Results)
    by_string = depends("tests.apps.results:Results")
    elsewhere = depends(Results, name="Elsewhere", url=ELSEWHERE)
    elsewhere_by_string = depends(
        "tests.apps.results:Results", name="ElsewhereByString", url=ELSEWHERE
    )

    @api
    async def ask(self, way: str, name: str, wrong: bool) -> str:
        """What a call says: the result, or the words of its failure."""
        method = getattr(getattr(self, way), name)
        try:
            if name in STREAMS:
                return repr([item async for item in method(wrong)])
            return repr(await method([wrong, wrong] if name == "batched" else wrong))
        except GraphServeError as exc:
            return (
                f"{type(exc).__name__} {exc.status}: {exc}"
                if isinstance(exc, CallError)
                else str(exc)
            )

    @api
    async def ask_all(self, way: str) -> dict[str, tuple[str, str]]:
        names = [*GIVEN, *STREAMS]
        answers = await asyncio.gather(
            *(self.ask(way, name, wrong) for name in names for wrong in (False, True))
        )
        return dict(zip(names, zip(answers[::2], answers[1::2], strict=True), strict=True))


def give(name: str, wrong: bool) -> Any:
    return GIVEN[name][wrong]
