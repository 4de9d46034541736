"""WebSockets of a local graph, over ASGI: what Starlette's `TestClient` asks `local()` for.

Runs where `local()` was called, on its loop. The endpoints and the rules of how code ends are those
of workers; only the connection is missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import cast
from urllib.parse import unquote

from graphserve.run.local_node import LocalNode
from graphserve.wire.signature import Signature
from graphserve.worker.http.asgi import Message, Receive, Scope, Send
from graphserve.worker.http.response import Responder
from graphserve.worker.websockets.conversation import NOTICE, Conversation
from graphserve.worker.websockets.endpoint import (
    ABNORMAL,
    GOING_AWAY,
    NORMAL,
    TIME_IS_OVER,
    TOO_BIG,
    SocketEndpoint,
)
from graphserve.worker.websockets.routes import RoutedSocket, SocketRoutes


class LocalSlots:
    """The slots of a local node, as a WebSocket takes one.

    Args:
        node: the node.
    """

    def __init__(self, node: LocalNode) -> None:
        self._node = node

    @property
    def waiting(self) -> int:
        """Return how many wait for one."""
        return len(self._node.sockets)

    def when_free(self, then: Callable[[], None]) -> None:
        """Call `then` with a slot taken for it, as soon as one is free."""
        if self._node.take():
            then()
        else:
            self._node.sockets.append(then)

    def forget(self, then: Callable[[], None]) -> None:
        """Stop waiting for a slot for `then`."""
        if then in self._node.sockets:
            self._node.sockets.remove(then)

    def release(self) -> None:
        """Give a slot back."""
        self._node.release()


class LocalSockets:
    """Serves the WebSockets of the entry of a local graph.

    Args:
        node: the entry, started.
        declared: its class, which has the signatures.
    """

    def __init__(self, node: LocalNode, declared: type) -> None:
        plan = node.plan
        responder = Responder(plan.name, public=True, debug=False)
        slots = LocalSlots(node) if plan.options.concurrency is not None else None
        forwarded = frozenset(name.lower().encode() for name in plan.options.forward_headers)
        self._node = node
        self._routes = SocketRoutes(plan.sockets)
        self._endpoints: Mapping[str, SocketEndpoint] = {
            each.name: SocketEndpoint(
                each,
                node.method(each.name),
                Signature.of_socket(declared, each.name),
                node.executor,
                slots,
                responder,
                forwarded,
            )
            for each in plan.sockets
        }
        self._talks: set[_Talk] = set()

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run a WebSocket from its handshake to its end (ASGI, for `websocket` scopes)."""
        raw = scope.get("raw_path") or scope["path"].encode()
        found = self._routes.find(raw)
        if found is None:
            await receive()
            await send({"type": "websocket.close", "code": NORMAL, "reason": "no such WebSocket"})
            return
        names = {name: unquote(value.decode("latin-1")) for name, value in found.parameters}
        told: Scope = {
            **scope,
            "raw_path": raw,
            "path_params": names,
            "graphserve.path_params": found.parameters,
        }
        told.setdefault("client", None)
        patience = self._node.plan.options.graceful_timeout
        endpoint = self._endpoints[found.plan.name]
        talk = _Talk(endpoint, found, told, receive, send, patience, self._talks)
        await talk.run()

    def stop(self, *, now: bool) -> None:
        """Have each end: at once, or when the grace of a stop is over."""
        for talk in tuple(self._talks):
            talk.stop(now=now)


class _Talk:
    """One WebSocket that is open."""

    def __init__(
        self,
        endpoint: SocketEndpoint,
        found: RoutedSocket,
        scope: Scope,
        receive: Receive,
        send: Send,
        patience: float,
        talks: set[_Talk],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._limits = found.plan.limits
        self._patience = patience
        self._talks = talks  # those that are open
        self._receive = receive
        self._send = send
        self._room = asyncio.Event()
        self._over = asyncio.Event()
        self._closed = False
        self._error: BaseException | None = None
        self._said = self._loop.time()
        self._timers: list[asyncio.TimerHandle] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._conversation = Conversation(
            endpoint,
            scope,
            self._take,
            patience=patience,
            on_room=self._room.set,
            on_end=self._ended,
        )

    async def run(self) -> None:
        """Run it to its end.

        A `TestClient` that is left cancels this, and what it has said may still be unread: the code
        hears it, and that its client is gone.
        """
        self._talks.add(self)
        self._begin(self._hear())
        try:
            await self._over.wait()
        except asyncio.CancelledError:
            self._timers.append(self._loop.call_later(NOTICE, self._conversation.lose, ABNORMAL))
            raise
        if self._error is not None:
            raise self._error

    def _begin(self, work: Coroutine[object, None, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def stop(self, *, now: bool) -> None:
        """Have it end: at once, or when the grace of a stop is over."""
        if now:
            self._go_away("it stops")
        else:
            self._later(self._patience / 2, "it stops")

    async def _hear(self) -> None:
        """Give the code what its client says."""
        await self._receive()  # that it connects
        limits = self._limits
        if limits.timeout is not None:
            self._later(limits.timeout, TIME_IS_OVER)
        if limits.idle is not None:
            self._look_at_silence()
        self._conversation.begin()
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                code, reason = message.get("code", ABNORMAL), message.get("reason") or ""
                self._conversation.lose(code, reason, orderly=True)
                return
            self._said = self._loop.time()
            text = message.get("text")
            size = len(text.encode() if text is not None else message["bytes"])
            if size > limits.max_size:
                await self._close(TOO_BIG, f"a message is longer than {limits.max_size} bytes")
                return
            self._conversation.hear(message, size)
            while self._conversation.full:
                self._room.clear()
                await self._room.wait()

    async def _take(self, message: Message) -> None:
        """Send what the code says."""
        if self._conversation.lost:
            self._conversation.tell()
            raise ConnectionError("the client of the WebSocket is gone")
        self._said = self._loop.time()
        await self._send(message)
        if message["type"] == "websocket.close":
            self._closed = True
            self._conversation.lose(message.get("code", NORMAL), message.get("reason") or "")

    def _ended(self, error: BaseException | None) -> None:
        if not isinstance(error, asyncio.CancelledError):
            self._error = error
        self._talks.discard(self)
        for timer in self._timers:
            timer.cancel()
        for task in self._tasks:
            task.cancel()
        self._over.set()

    def _later(self, seconds: float, reason: str) -> None:
        self._timers.append(self._loop.call_later(seconds, self._go_away, reason))

    def _look_at_silence(self) -> None:
        idle = cast("float", self._limits.idle)
        left = self._said + idle - self._loop.time()
        if left > 0:
            self._timers.append(self._loop.call_later(left, self._look_at_silence))
        else:
            self._go_away(f"nothing was said for {idle:g} s")

    def _go_away(self, reason: str) -> None:
        self._begin(self._close(GOING_AWAY, reason))

    async def _close(self, code: int, reason: str) -> None:
        if not (self._closed or self._conversation.lost):
            self._closed = True
            await self._send({"type": "websocket.close", "code": code, "reason": reason})
            self._conversation.lose(code, reason)
