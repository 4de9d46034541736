"""Our own code fails while a request is read: an answer, a line in the log, a close; never a
connection that hangs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from graphserve import api, service
from graphserve.graph.builder import resolve_here
from graphserve.worker.dispatch.executor import BoundApi, Executor, bind
from graphserve.worker.dispatch.slots import Slots
from graphserve.worker.http.limits import Limits
from graphserve.worker.http.listener import Listener, routes
from graphserve.worker.http.protocol import HttpConnection
from graphserve.worker.http.public.connection import PublicConnection
from graphserve.worker.http.public.timeouts import Timeouts
from graphserve.worker.http.response import Responder
from graphserve.worker.pages.application import WorkerApp
from graphserve.worker.pages.health import Health
from tests.hostile.wire import answers

HEAD = (
    b"POST /%b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: 2\r\n\r\n"
)
GOOD, BAD = HEAD % b"good" + b"{}", HEAD % b"bad" + b"{}"


@service
class Doors:
    @api
    async def good(self) -> int:
        return 1

    @api
    async def bad(self) -> int:
        return 2


class Broken:
    """Stands for a part of ours, and fails where it is asked for one of these attributes; for all,
    if none is named.
    """

    def __init__(self, part: Any = None, *names: str) -> None:
        self._part = part
        self._names = names

    def __getattr__(self, name: str) -> Any:
        if name in self._names or not self._names:
            raise ZeroDivisionError(name)
        return getattr(self._part, name)


def listener(*, public: bool) -> Listener:
    """A real one, for one service, in this loop."""
    plan, classes = resolve_here(Doors, {})
    node = plan.node("Doors")
    cls, _ = classes["Doors"]
    apis = bind(node, cls())
    responder = Responder(node.name, public=public, debug=False)
    app = WorkerApp(Health(node.name, list), apis)
    executor = Executor(node, ThreadPoolExecutor(1))
    relay: Any = None
    return Listener(
        app, routes(apis.values()), executor, Slots(1), responder, relay, {}, keep_alive=5.0
    )


BREAKS: dict[str, Callable[[BoundApi], BoundApi]] = {
    "before it is a request": lambda api: replace(api, plan=Broken()),
    "where its headers end": lambda api: replace(api, signature=Broken()),
    "where it is dispatched": lambda api: replace(api, plan=Broken(api.plan, "lane")),
    "where it is decoded": lambda api: replace(api, arguments=Broken()),
    "where its result is encoded": lambda api: replace(api, result=Broken()),
}


@pytest.mark.parametrize("public", [True, False], ids=["public", "private"])
@pytest.mark.parametrize("before", [0, 2], ids=["first", "behind others"])
@pytest.mark.parametrize("name", BREAKS)
def test_it_ends_in_an_answer_a_line_and_a_close(
    public: bool, before: int, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    received = asyncio.run(talk(public, BREAKS[name], GOOD * before + BAD + GOOD))
    found = answers(received)
    if found[-1].headers.get("connection") != "close":
        assert found.pop().body == b"1", "its connection may go on"
    assert [answer.status for answer in found] == [200] * before + [500]
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == 1


async def talk(public: bool, spoil: Callable[[BoundApi], BoundApi], raw: bytes) -> bytes:
    made = listener(public=public)
    made.apis[b"/bad"] = spoil(made.apis[b"/bad"])
    timeouts = Timeouts(made, Limits(connections=10, patience=5.0, keep_alive=0.2))
    factory = (
        (lambda: PublicConnection(made, timeouts)) if public else (lambda: HttpConnection(made))
    )
    server = await asyncio.get_running_loop().create_server(factory, "127.0.0.1", 0)
    try:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(raw)
        async with asyncio.timeout(20):
            received = await reader.readuntil(b"500 Internal Server Error")
            while data := await reader.read(65536):
                received += data
                made.close_idle()
        writer.close()
        return received
    finally:
        server.close()
