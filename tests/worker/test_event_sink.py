"""An EventSource hears a comment while nothing comes, by a clock that the test turns."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from graphserve.wire.formats import StreamFormat
from graphserve.worker.http import response
from graphserve.worker.http.response import HEARTBEAT, EventSink


class Loop:
    """A clock, and what is to happen by it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[Any] = []

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, call: Callable[[], None]) -> Any:
        timer = SimpleNamespace(at=self.now + seconds, call=call)
        timer.cancel = lambda: self.timers.remove(timer)
        self.timers.append(timer)
        return timer

    def turn(self, seconds: float) -> None:
        """Let this time pass."""
        end = self.now + seconds
        while due := sorted(
            (each for each in self.timers if each.at <= end), key=lambda each: each.at
        ):
            self.timers.remove(due[0])
            self.now = due[0].at
            due[0].call()
        self.now = end


class Request:
    """A request whose answer is what was written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.transport = SimpleNamespace(write=self.written.append)
        self.flow = SimpleNamespace(write_paused=False)
        self.accepts = b"text/event-stream"
        self.http_1_0 = False
        self.lost = False
        self.response_complete = False
        self.keep_alive = True
        self.trust = None
        self.context = SimpleNamespace(request_id=b"", answer=None)
        self.responder = SimpleNamespace(stream_head=lambda *args: b"head ")

    def finish(self, status: int, data: bytes) -> None:
        self.written.append(data)
        self.response_complete = True

    @property
    def took(self) -> list[bytes]:
        """What was written since it was asked last."""
        taken = [*self.written]
        self.written.clear()
        return taken


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    loop = Loop()
    monkeypatch.setattr(response.asyncio, "get_running_loop", lambda: loop)
    return loop


def sink(request: Request, number: int = 0) -> EventSink:
    api: Any = SimpleNamespace(result=SimpleNamespace(encode=lambda item, format: item))
    asking: Any = request
    return EventSink(asking, api, StreamFormat.EVENTS, number)


COMMENT = b"3\r\n:\n\n\r\n"


def test_a_comment_comes_while_nothing_else_does(loop: Loop) -> None:
    request = Request()
    events = sink(request, 7)
    loop.turn(HEARTBEAT - 1)
    assert request.took == []
    loop.turn(1)
    assert request.took == [b"head " + COMMENT]
    loop.turn(2 * HEARTBEAT)
    assert request.took == [COMMENT] * 2
    loop.turn(HEARTBEAT - 1)
    events.write(events.encode(b"1"))
    assert request.took == [b"f\r\nid: 8\ndata: 1\n\n\r\n"]
    loop.turn(HEARTBEAT - 1)
    assert request.took == []
    loop.turn(1)
    assert request.took == [COMMENT]
    events.end()
    assert request.took[-1].endswith(b"event: end\ndata:\n\n\r\n0\r\n\r\n")
    assert loop.timers == []


def test_who_takes_nothing_is_sent_nothing_more(loop: Loop) -> None:
    request = Request()
    sink(request)
    request.flow.write_paused = True
    loop.turn(3 * HEARTBEAT)
    assert request.took == []
    request.flow.write_paused = False
    loop.turn(HEARTBEAT)
    assert request.took == [b"head " + COMMENT]


@pytest.mark.parametrize("why", ["lost", "response_complete"])
def test_it_ends_with_its_client(loop: Loop, why: str) -> None:
    request = Request()
    sink(request)
    setattr(request, why, True)
    loop.turn(3 * HEARTBEAT)
    assert request.took == []
    assert loop.timers == []
