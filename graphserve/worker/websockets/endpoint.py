"""The method of a service as an ASGI application for WebSockets: it gets a slot and a context, and
what it raises becomes a status or a close code.

Runs in entry workers and in `local()`; it knows no connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Collection
from typing import Any, Literal, Protocol, cast

from starlette.exceptions import HTTPException, WebSocketException
from starlette.websockets import WebSocket, WebSocketDisconnect

from graphserve.call.context import CallContext, DependencyCall, give_up, shortest
from graphserve.call.fetched import remove_soon
from graphserve.errors import CallError, DeadlineExceeded, Unavailable
from graphserve.graph.plan import SocketPlan
from graphserve.wire import problem
from graphserve.wire.codec import ArgumentsCodec
from graphserve.wire.formats import Format
from graphserve.wire.headers import CONTENT_LENGTH, INTERNAL_PREFIX, REQUEST_ID
from graphserve.wire.problem import HttpProblem
from graphserve.wire.signature import Signature
from graphserve.wire.url_arguments import in_query, whole
from graphserve.worker.dispatch.executor import Executor, call_async
from graphserve.worker.http.asgi import Message, Receive, Scope, Send
from graphserve.worker.http.contexts import ClientContext
from graphserve.worker.http.response import Responder
from graphserve.worker.websockets.conversation import NOTICE

# close codes (RFC 6455, 7.4.1, and IANA's registry)
NORMAL = 1000
GOING_AWAY = 1001
UNSUPPORTED = 1003
ABNORMAL = 1006
INVALID = 1007
POLICY = 1008
TOO_BIG = 1009
INTERNAL = 1011
TRY_AGAIN = 1013
LONGEST_REASON = 123  # bytes, of a close frame
TIME_IS_OVER = "its time is over"
REFUSED = 403  # what ASGI has for a handshake that is closed


class SocketSlots(Protocol):
    """Where a WebSocket gets the slot that it holds: `Slots`, or a node of a local graph."""

    @property
    def waiting(self) -> int:
        """Return how many wait for one."""
        ...

    def when_free(self, then: Callable[[], None]) -> None:
        """Call `then` with a slot taken for it, as soon as one is free."""

    def forget(self, then: Callable[[], None]) -> None:
        """Stop waiting for a slot for `then`."""

    def release(self) -> None:
        """Give a slot back."""


class Talking:
    """A WebSocket that is open, as what is executed (`Running`)."""

    in_thread = False

    def __init__(self, context: CallContext) -> None:
        self.context = context


class SocketEndpoint:
    """Runs the method of one WebSocket for each client.

    Args:
        plan: the WebSocket.
        method: of the instance.
        signature: what its URL says.
        executor: of the worker.
        slots: where it gets a slot; None if the node executes as much as comes.
        responder: notes what is raised, for the log and for the client.
        forward_headers: names of headers that travel down with each call, in lower case.
    """

    def __init__(
        self,
        plan: SocketPlan,
        method: Callable[..., object],
        signature: Signature,
        executor: Executor,
        slots: SocketSlots | None,
        responder: Responder,
        forward_headers: Collection[bytes] = (),
    ) -> None:
        self.plan = plan
        self._method = method
        self._arguments = ArgumentsCodec(signature)
        self._names = frozenset(f"{each.name}=".encode() for each in signature.parameters)
        self._executor = executor
        self._slots = slots
        self._forward_headers = forward_headers
        self._responder = responder
        self._node = executor.node

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the method for a client (ASGI, for `websocket` scopes)."""
        timeout = self.plan.limits.timeout
        context = ClientContext.of_socket(scope, self._forward_headers, timeout)
        channel = SocketChannel(context, receive, send)
        try:
            if context.refusal is not None:
                raise context.refusal
            arguments = self._read(scope)
            await self._wait_for_slot(context)
        except CallError as exc:
            await self._refuse(channel, scope, context, exc)
            return
        talking = Talking(context)
        self._executor.register(talking)
        try:
            await self._talk(channel, scope, context, arguments)
        finally:
            channel.end()
            context.end()
            if context.files is not None:
                remove_soon(context)
            self._executor.unregister(talking)
            if self._slots is not None:
                self._slots.release()

    # --- before it runs ---

    def _read(self, scope: Scope) -> dict[str, object]:
        """Return the arguments that the URL says."""
        # what else is in the query, user code reads there
        named = [
            pair
            for pair in scope["query_string"].split(b"&")
            if pair.partition(b"=")[0] + b"=" in self._names
        ]
        in_path = [in_query(name, value) for name, value in scope["graphserve.path_params"]]
        request = whole(b"GET", Format.JSON.value, b"&".join([*in_path, *named]), b"")
        return self._arguments.decode(request, Format.BY_URL)

    async def _wait_for_slot(self, context: CallContext) -> None:
        """Wait until there is a slot for it, which it holds until it ends.

        Raises:
            Unavailable: too many wait.
            DeadlineExceeded: there was none in the time that a call has.
        """
        slots, node = self._slots, self._node
        if slots is None:
            return
        if slots.waiting >= node.options.queue:
            raise Unavailable(f"the queue of {node.name} is full", node=node.name, full=True)
        free = asyncio.get_running_loop().create_future()

        def take() -> None:
            if free.done():  # it was cancelled, or is late
                slots.release()
            else:
                free.set_result(None)

        slots.when_free(take)
        try:
            async with asyncio.timeout(shortest(node.options.timeout, context.seconds_left())):
                await free
        except BaseException as exc:
            slots.forget(take)
            if free.done() and not free.cancelled():
                slots.release()
            if not isinstance(exc, TimeoutError):
                raise
            text = f"{node.name} had no room for the WebSocket before the deadline"
            raise DeadlineExceeded(text, node=node.name) from None

    async def _refuse(
        self, channel: SocketChannel, scope: Scope, context: CallContext, error: CallError
    ) -> None:
        """Answer the handshake with an error."""
        name, debug = self._node.name, self._responder.debug
        await refuse_socket(channel, scope, context.request_id, error, name, with_details=debug)

    # --- while it runs ---

    async def _talk(
        self,
        channel: SocketChannel,
        scope: Scope,
        context: CallContext,
        arguments: dict[str, object],
    ) -> None:
        socket = ClientSocket(scope, channel.receive, channel.send)
        method = self._method
        try:
            await call_async(lambda **given: method(socket, **given), arguments, context)
        except asyncio.CancelledError:
            context.leave()
            raise
        except WebSocketException as exc:
            await self._end(channel, scope, context, exc.code, exc.reason or "")
        except Exception as exc:
            gone = context.gone
            context.leave()
            if not (gone and _is_of_the_end(exc)):
                await self._fail(channel, scope, context, exc)
        else:
            if channel.state == "asked":
                text = "it returned without `await socket.accept()` or `await socket.close()`"
                await self._fail(channel, scope, context, RuntimeError(text))
            else:
                await self._end(channel, scope, context, NORMAL, "")

    async def _end(
        self, channel: SocketChannel, scope: Scope, context: CallContext, code: int, reason: str
    ) -> None:
        if channel.state == "open":
            with contextlib.suppress(OSError):  # the client is gone meanwhile
                await channel.send({"type": "websocket.close", "code": code, "reason": reason})
        elif channel.state == "asked":
            await self._refuse(channel, scope, context, HttpProblem(REFUSED, reason or "refused"))

    async def _fail(
        self, channel: SocketChannel, scope: Scope, context: CallContext, exc: Exception
    ) -> None:
        """Tell the client what was raised; what is nobody's plan is logged with its traceback."""
        if isinstance(exc, HTTPException) and channel.state == "asked":
            await self._refuse(channel, scope, context, HttpProblem(exc.status_code, exc.detail))
            return
        left = context.seconds_left()
        if isinstance(exc, DeadlineExceeded) and left is not None and left <= 0:
            await self._end(channel, scope, context, GOING_AWAY, TIME_IS_OVER)
            return
        error = self._responder.note(exc, context, self.plan.name)
        if channel.state == "asked":
            await self._refuse(channel, scope, context, error)
        else:
            await self._end(channel, scope, context, close_code(error), error.title)


async def refuse_socket(
    channel: SocketChannel,
    scope: Scope,
    request_id: bytes,
    error: CallError,
    node: str,
    *,
    with_details: bool = False,
) -> None:
    """Answer a handshake with an error.

    Args:
        channel: that it came by.
        scope: as of ASGI.
        request_id: of the handshake.
        error: the error.
        node: whose port it is.
        with_details: whether the client may know the texts of exceptions.
    """
    said = request_id.decode("latin-1")
    status, pairs, body = problem.encode(
        error, node=node, request_id=said, with_details=with_details
    )
    kept = [(name, value) for name, value in pairs if not name.startswith(INTERNAL_PREFIX)]
    headers = [*kept, (CONTENT_LENGTH, b"%d" % len(body))]
    with contextlib.suppress(OSError):  # the client is gone meanwhile
        if "websocket.http.response" not in scope.get("extensions", {}):
            await channel.send({"type": "websocket.close", "code": close_code(error)})
            return
        await channel.send(
            {"type": "websocket.http.response.start", "status": status, "headers": headers}
        )
        await channel.send({"type": "websocket.http.response.body", "body": body})


class SocketChannel:
    """What an application receives and sends, watched: how far it is, and whether its client is
    gone.
    """

    def __init__(self, context: CallContext, receive: Receive, send: Send) -> None:
        self._context = context
        self._receive = receive
        self._send = send
        self._timer: asyncio.TimerHandle | None = None
        self.state: Literal["asked", "open", "closed"] = "asked"

    async def receive(self) -> Message:
        """Return the next message (ASGI)."""
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            self.state = "closed"
            self._context.gone = True
            # What was called for the client is given up, like the code that was not told. What it
            # calls from now on is to end well.
            if self._timer is None and (calls := set(self._context.calls or ())):
                loop = asyncio.get_running_loop()
                self._timer = loop.call_later(NOTICE, self._give_up, calls)
        return message

    async def send(self, message: Message) -> None:
        """Send a message (ASGI); the first one has what was set for the answer."""
        kind = message["type"]
        if kind != "websocket.send" and self.state == "asked":
            fields = [(REQUEST_ID, self._context.request_id)]
            if (answer := self._context.answer) is not None and kind == "websocket.accept":
                fields += answer.fields()
                answer.close()
            message = {**message, "headers": [*message.get("headers", ()), *fields]}
        if kind == "websocket.accept":
            self.state = "open"
        elif kind != "websocket.send":
            self.state = "closed"
        if kind == "websocket.close":
            message = {**message, "reason": _cut(message.get("reason") or "")}
        try:
            await self._send(message)
        except OSError:
            self._context.gone = True
            self.state = "closed"
            raise

    def end(self) -> None:
        """Watch no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _give_up(self, calls: set[DependencyCall]) -> None:
        give_up(calls & (self._context.calls or set()))


class ClientSocket(WebSocket):
    """Starlette's `WebSocket`; what a client says in another form than asked is told the client,
    and is no failure of the service.
    """

    async def receive_text(self) -> str:
        """Return the next message, which is text.

        Raises as Starlette does, and WebSocketException if it is bytes.
        """
        return cast(str, await self._of_kind("text", super().receive_text))

    async def receive_bytes(self) -> bytes:
        """Return the next message, which is bytes.

        Raises as Starlette does, and WebSocketException if it is text.
        """
        return cast(bytes, await self._of_kind("bytes", super().receive_bytes))

    async def receive_json(self, mode: str = "text") -> Any:
        """Return the next message, read as JSON.

        Args:
            mode: `text`, or `binary` for JSON that comes as bytes.

        Raises as Starlette does, and WebSocketException if it is no JSON or in the other form.
        """
        if mode not in ("text", "binary"):
            return await super().receive_json(mode)
        text = await (self.receive_text() if mode == "text" else self.receive_bytes())
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise WebSocketException(INVALID, "a message is no valid JSON") from None

    async def _of_kind(self, kind: str, receive: Callable[[], Any]) -> object:
        try:
            found = await receive()
        except KeyError:
            found = None
        if found is None:
            raise WebSocketException(UNSUPPORTED, f"messages are {kind} here")
        return found


def _is_of_the_end(exc: BaseException) -> bool:
    """Return whether code has raised this for no other reason than that its client is gone."""
    if isinstance(exc, BaseExceptionGroup):
        return all(map(_is_of_the_end, exc.exceptions))
    return (
        isinstance(exc, WebSocketDisconnect)
        # a call that was given up, and what Starlette raises of a socket that is closed
        or isinstance(exc.__cause__, asyncio.CancelledError)
        or (isinstance(exc, RuntimeError) and "once a " in str(exc) and "Cannot call" in str(exc))
    )


def close_code(error: CallError) -> int:
    """Return the code with which a connection is closed that an error ends."""
    if error.status == Unavailable.default_status:
        return TRY_AGAIN
    return POLICY if error.status < 500 else INTERNAL


def _cut(reason: str) -> str:
    """Return a reason that fits into a close frame."""
    return reason.encode("utf-8", "replace")[:LONGEST_REASON].decode("utf-8", "ignore")
