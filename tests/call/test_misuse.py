"""A forgotten await, and an await of a stream: the error says what to write."""

from __future__ import annotations

import gc
import operator
import warnings
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import pytest

import graphserve
from graphserve import RemoteError, api, depends, service

WRITE_AWAIT = (
    r"Leaf\.add\(\.\.\.\) is a call under way, not its result: write `await self\.….add\(\.\.\.\)`,"
    r" or `\.result\(\)` behind it in a plain `def`"
)
WRITE_FOR = (
    r"Leaf\.count\(\.\.\.\) is a stream of items, not one result: write `async for item in"
    r" self\.….count\(\.\.\.\)`, or `for` in a plain `def`"
)


@service
class Leaf:
    @api
    async def add(self, x: int) -> int:
        return x + 1

    @api
    async def count(self, to: int) -> AsyncIterator[int]:
        for x in range(to):
            yield x


@service
class Top:
    leaf = depends(Leaf)

    @api
    async def forgot(self) -> int:
        return self.leaf.add(1) + 1  # type: ignore[operator,no-any-return]

    @api
    async def returned_call(self) -> Any:
        return self.leaf.add(1)

    @api
    async def dropped(self) -> int:
        self.leaf.add(1)
        return 1

    @api
    def forwarded(self) -> AsyncIterator[int]:
        return self.leaf.count(3)

    @api
    async def returned(self) -> Any:
        return self.leaf.count(3)

    @api
    async def passed(self) -> int:
        return await self.leaf.add(self.leaf.count(3))  # type: ignore[arg-type]


async def in_a_loop(call: Any) -> None:
    for _ in call:
        pass


async def awaited(stream: Any) -> None:
    await stream


@pytest.mark.anyio
@pytest.mark.parametrize(
    "use",
    [
        lambda call: call + 1,
        lambda call: 1 + call,
        lambda call: call * 2,
        lambda call: call > 3,
        lambda call: call[0],
        lambda call: 3 in call,
        lambda call: -call,
        int,
        float,
        operator.index,
        list,
        in_a_loop,
    ],
)
async def test_a_call_where_its_result_was_meant(use: Callable[[Any], Any]) -> None:
    async with graphserve.local(Leaf) as leaf:
        call = leaf.add(1)
        with pytest.raises(TypeError, match=WRITE_AWAIT):
            used = use(call)
            if isinstance(used, Awaitable):
                await used
        assert await call == 2


@pytest.mark.anyio
async def test_a_method_of_the_result_is_asked_of_the_call() -> None:
    async with graphserve.local(Leaf) as leaf:
        call: Any = leaf.add(1)
        with pytest.raises(AttributeError, match=f"no 'bit_length': {WRITE_AWAIT}"):
            call.bit_length()
        assert call, "code may ask whether it has a call"
        assert call in [call]
        assert not isinstance(call, AsyncIterable | Iterable), "that is how a stream is known"
        assert await call == 2


@pytest.mark.anyio
async def test_a_stream_where_one_result_was_meant() -> None:
    async with graphserve.local(Leaf) as leaf:
        stream: Any = leaf.count(2)
        for use in (awaited, lambda stream: stream[0], lambda stream: stream + 1):
            with pytest.raises(TypeError, match=WRITE_FOR):
                used = use(stream)
                if isinstance(used, Awaitable):
                    await used
        with pytest.raises(AttributeError, match=f"no 'result': {WRITE_FOR}"):
            stream.result()
        assert [item async for item in stream] == [0, 1]


@pytest.mark.anyio
async def test_a_stream_that_an_api_hands_on() -> None:
    async with graphserve.local(Top) as top:
        assert [item async for item in top.forwarded()] == [0, 1, 2]
        for call in (top.returned(), top.passed()):
            with pytest.raises(RemoteError, match="a stream cannot be sent: read its items with"):
                await call


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("forgets", "words"),
    [
        ("forgot", r"write `await self\.leaf\.add\(\.\.\.\)`"),
        ("returned_call", "a call that was not awaited cannot be sent"),
    ],
)
async def test_an_error_that_says_what_to_write_is_followed_by_no_warning(
    forgets: str, words: str
) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        async with graphserve.local(Top) as top:
            with pytest.raises(RemoteError, match=words):
                await getattr(top, forgets)()
            gc.collect()
    assert not [str(each.message) for each in said if "Leaf.add" in str(each.message)]


@pytest.mark.anyio
async def test_a_warning_names_the_line_of_the_user() -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        async with graphserve.local(Top) as top:
            assert await top.dropped() == 1
            gc.collect()
    assert [each.filename for each in said if "Leaf.add was dropped" in str(each.message)] == [
        __file__
    ]
