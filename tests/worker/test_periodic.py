"""What is done again and again goes on, however often it fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from graphserve.loop.periodic import Periodic


class Scripted:
    """Raises what its list says at each call, and counts them."""

    def __init__(self, *raised: BaseException | None, then: Callable[[], object]) -> None:
        self.raised = list(raised)
        self.then = then
        self.calls = 0

    def call(self) -> None:
        """Raise what is next, or say that the list is over."""
        self.calls += 1
        if not self.raised:
            self.then()
        elif (exc := self.raised.pop(0)) is not None:
            raise exc


def test_what_fails_keeps_back_neither_the_others_nor_the_next_time() -> None:
    told: list[str] = []

    async def main() -> tuple[int, int]:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, told_of: told.append(repr(told_of["exception"])))
        over = asyncio.Event()
        no_room, other = OSError(24, "Too many open files"), ValueError("x")
        failing = Scripted(no_room, no_room, other, None, no_room, then=over.set)
        beside = Scripted(then=lambda: None)
        periodic = Periodic(0.0, failing.call, beside.call)
        periodic.begin()
        await over.wait()
        periodic.cancel()
        calls = failing.calls, beside.calls
        for _ in range(5):
            await asyncio.sleep(0)
        assert (failing.calls, beside.calls) == (calls[0], calls[0]), "it was cancelled"
        return calls

    failing, _ = asyncio.run(main())
    assert failing == 6
    text = "OSError(24, 'Too many open files')"
    assert told == [text, "ValueError('x')", text], "the same is told once in a row"


def test_what_ends_the_loop_does_not_end_it() -> None:
    loop = asyncio.new_event_loop()
    try:
        scripted = Scripted(SystemExit(3), None, then=loop.stop)
        periodic = Periodic(0.0, scripted.call)
        loop.call_soon(periodic.begin)
        try:
            loop.run_forever()
        except SystemExit:
            loop.run_forever()
        assert scripted.calls == 3
        periodic.cancel()
    finally:
        loop.close()


def test_the_first_call_may_wait() -> None:
    async def main() -> int:
        over = asyncio.Event()
        scripted = Scripted(then=over.set)
        periodic = Periodic(0.0, scripted.call)
        periodic.begin_later()
        assert scripted.calls == 0
        await over.wait()
        periodic.cancel()
        return scripted.calls

    assert asyncio.run(main()) == 1
