"""The end of connections in a drain, in one process: what was accepted just before is answered
too.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvloop

from graphserve import api, service
from graphserve.call.membership import Membership
from graphserve.graph.builder import resolve_here
from graphserve.worker.fallback import FallbackServer
from graphserve.worker.http.public import acceptor

REQUEST = b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"


@service
class Entry:
    @api
    async def one(self) -> int:
        return 1


@contextmanager
def asking(address: tuple[str, int], connected: threading.Event) -> Iterator[list[bytes]]:
    """A client in a thread, which asks once; its answer is there at the end."""
    answers: list[bytes] = []

    def ask() -> None:
        with socket.create_connection(address, 20) as client:
            connected.wait(20)
            client.sendall(REQUEST)
            answers.append(client.makefile("rb").read())

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield answers
    finally:
        connected.set()
        thread.join(20)


@pytest.mark.parametrize("sends_first", [True, False])
def test_a_connection_that_is_accepted_as_the_drain_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sends_first: bool
) -> None:
    plan = resolve_here(Entry, {})[0]
    drained: list[asyncio.Task[None]] = []
    sent = threading.Event()
    if sends_first:
        sent.set()

    class Accepted(acceptor.PublicConnection):
        """Made when the loop accepts, one turn before `connection_made`."""

        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            drained.append(asyncio.ensure_future(fallback.drain(last=False)))

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            sent.set()

    async def serve() -> None:
        nonlocal fallback
        fallback = FallbackServer(plan, plan.node("Entry"), tmp_path, Membership())
        await fallback.start()
        with socket.create_server(("127.0.0.1", 0)) as listening:
            address = listening.getsockname()
            await fallback.listen(listening.dup())
            with asking(address, sent) as answers:
                async with asyncio.timeout(20):
                    while not drained:  # noqa: ASYNC110 - by a callback of the loop
                        await asyncio.sleep(0)
                    await drained[0]
        assert answers[0].startswith(b"HTTP/1.1 200"), answers

    fallback: Any = None
    monkeypatch.setattr(acceptor, "PublicConnection", Accepted)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())


def test_who_has_sent_nothing_yet_has_the_time_for_headers_at_a_fallback_server_that_goes(
    tmp_path: Path,
) -> None:
    plan = resolve_here(Entry, {})[0]
    plan = replace(plan, listen=replace(plan.listen, timeout_keep_alive=0.05, timeout_client=600.0))

    async def serve() -> None:
        fallback = FallbackServer(plan, plan.node("Entry"), tmp_path, Membership())
        await fallback.start()
        with socket.create_server(("127.0.0.1", 0)) as listening:
            address = listening.getsockname()
            await fallback.listen(listening.dup())
        reader, writer = await asyncio.open_connection(*address)
        while not fallback.listener.open():  # noqa: ASYNC110 - by a callback of the loop
            await asyncio.sleep(0)
        drained = asyncio.ensure_future(fallback.drain(last=False))
        await asyncio.wait([drained], timeout=1.5)  # longer than an idle connection has
        assert not drained.done()
        writer.write(REQUEST)
        assert (await reader.read()).startswith(b"HTTP/1.1 200")
        writer.close()
        async with asyncio.timeout(20):
            await drained

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())
