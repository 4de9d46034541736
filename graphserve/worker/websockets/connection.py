"""A connection of the public port that has become a WebSocket. Runs in entry workers.

`websockets` reads and writes the frames. What is here bounds them: a client is held back while
messages wait for the user's code, or while it does not take what is sent; who is too slow, silent
or wrong is ended.
"""

from __future__ import annotations

import asyncio
import codecs
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote

from websockets.frames import Frame, Opcode
from websockets.protocol import State

from graphserve.call.context import CallContext
from graphserve.call.request import new_request_id
from graphserve.call.request_head import RequestHead
from graphserve.declare.options import SocketLimits
from graphserve.errors import CallError, Unavailable
from graphserve.graph.plan import NodePlan
from graphserve.logs import records
from graphserve.metrics.layout import CLIENT_LEFT, OTHER
from graphserve.wire.headers import CLOSE, REQUEST_ID, Headers
from graphserve.wire.problem import HttpProblem
from graphserve.wire.reason_phrases import phrase
from graphserve.wire.trust import PUBLIC
from graphserve.worker.http.access_log import log_answer, shown
from graphserve.worker.http.asgi import AsgiApp, Message, Scope
from graphserve.worker.http.limits import LEAST_RATE, PORTION
from graphserve.worker.http.listener import Listener
from graphserve.worker.http.protocol import LINGER
from graphserve.worker.http.public.timeouts import Timeouts
from graphserve.worker.http.strict import RequestRefused
from graphserve.worker.http.transport import FlowControl, local_address, unsent_bytes
from graphserve.worker.websockets.conversation import Conversation
from graphserve.worker.websockets.door import Begin, UpgradedConnection
from graphserve.worker.websockets.endpoint import (
    ABNORMAL,
    GOING_AWAY,
    INTERNAL,
    INVALID,
    POLICY,
    TIME_IS_OVER,
)
from graphserve.worker.websockets.handshake import Handshake, lines_of
from graphserve.worker.websockets.routes import Parameters, RoutedSocket, SocketRoutes

CLOSE_TIMEOUT = 5.0  # seconds that a client has to answer a close frame
SLICE = 0.002  # seconds in which the frames of one connection are read, until others have a turn
# seconds before the end of the grace at which it is closed, so that its code has time to end
LAST_WORDS = 1.0
SHARE_OF_GRACE = 0.25  # of a short grace, likewise
LONG_PORTION = 16 * 1024  # bytes that are read at once while they are of one frame
VERSIONS = {"version": "3.0", "spec_version": "2.4"}
_OF_MESSAGES = frozenset({Opcode.TEXT, Opcode.BINARY, Opcode.CONT})


@dataclass(frozen=True)
class Opening:
    """The request that asks for a WebSocket.

    Args:
        handshake: checked.
        head: of the request.
        parameters: of its path.
        limits: of the WebSocket.
        grace: seconds that it goes on when the worker drains.
        principal: whose API key it came with, if clients need one.
        route: the path that the WebSocket was declared with.
    """

    handshake: Handshake
    head: RequestHead
    parameters: Parameters
    limits: SocketLimits
    grace: float
    principal: str | None = None
    route: str = ""


class OpenDoor:
    """Takes the clients of the WebSockets of a service.

    Args:
        node: the entry.
        routes: its WebSockets.
        endpoints: what runs them, by name.
        find_mounted: as of `SocketDoor`.
    """

    def __init__(
        self,
        node: NodePlan,
        routes: SocketRoutes,
        endpoints: Mapping[str, AsgiApp],
        find_mounted: Callable[[bytes], RoutedSocket | None],
    ) -> None:
        self._node = node
        self._endpoints = endpoints
        self.find = routes.find
        self.find_mounted = find_mounted

    def open(self, connection: UpgradedConnection, found: RoutedSocket, head: RequestHead) -> Begin:
        """Check a handshake, and return what takes the connection over.

        Raises:
            RequestRefused: it is no handshake, or the worker drains.
        """
        listener, plan = connection.listener, found.plan
        if listener.closing:
            name = self._node.name
            raise RequestRefused(Unavailable(f"this worker of {name} stops", node=name))
        handshake = Handshake.of(head.target, list(head.headers), plan.limits)
        grace = self._node.options.graceful_timeout
        opening = Opening(
            handshake, head, found.parameters, plan.limits, grace, connection.principal, plan.path
        )

        def begin(first: bytes) -> None:
            WebSocketConnection(
                listener,
                connection.timeouts,
                connection.transport,
                connection.flow,
                self._endpoints[plan.name],
                opening,
            ).begin(first)

        return begin


class WebSocketConnection(asyncio.Protocol):
    """A connection that carries a WebSocket, from its handshake on.

    Args:
        listener: where it was accepted.
        timeouts: end it when its client is too slow.
        transport: the connection's.
        flow: says whether either side is held back.
        app: what answers, an ASGI application for `websocket` scopes.
        opening: the handshake.
    """

    # what the timeouts ask of a connection
    spare = False
    silent = False
    unused = False
    between_requests = False
    head_complete = True
    deadline_ns = None

    def __init__(
        self,
        listener: Listener,
        timeouts: Timeouts,
        transport: asyncio.Transport,
        flow: FlowControl,
        app: AsgiApp,
        opening: Opening,
    ) -> None:
        self.listener = listener
        self.loop = listener.loop
        self.transport = transport
        self.flow = flow
        self._timeouts = timeouts
        self._limits = opening.limits
        self._handshake = opening.handshake
        self._grace = opening.grace
        self._protocol = opening.handshake.protocol
        self._head = opening.head
        self._client = opening.head.client
        self._request_id = b""
        recorder = listener.recorder
        route = OTHER if recorder is None else recorder.route(opening.route)
        self._series = listener.counted(b"GET", route)
        self.since = self.loop.time()
        self._began = self.since
        # what is sent
        self._state: Literal["asked", "refusing", "open", "closed"] = "asked"
        self._in_pieces = False  # whether the refusal has no length
        self._code = ABNORMAL  # of the close frame that counts
        # what comes
        self._held = bytearray()
        self._digesting = False
        self._opcode = Opcode.BINARY  # of the message that comes
        self._parts = bytearray()  # of it
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self.receiving = False  # whether a message is here in part
        self.discarding = False  # whether nothing that comes counts any more
        self._came = 0  # bytes
        self._counted = 0  # of them, at the last look
        self._behind = 0.0  # seconds that the client is behind the least rate
        self._unsent_bytes = 0  # bytes of what was sent, that it had not taken at the last look
        # the time
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._heard = True  # whether something has come since the last ping
        self._said = self.since  # when there was a message last, either way
        self._conversation = Conversation(
            app,
            self._scope(opening),
            self.send,
            patience=opening.grace,
            on_room=self._read_on,
            on_end=self._ended,
        )

    def begin(self, first: bytes) -> None:
        """Take the place of the connection that has read the handshake.

        Args:
            first: what came behind it.
        """
        self.listener.connections.add(self)
        self.transport.set_protocol(self)
        self._timeouts.admit(self)
        self._held += first
        self._hold_back()
        self._conversation.begin()

    def _scope(self, opening: Opening) -> Scope:
        head, root_path = opening.head, self.listener.root_path
        path, _, query = head.target.partition(b"?")
        bare = self.listener.path(path)
        return {
            "type": "websocket",
            "asgi": VERSIONS,
            "http_version": "1.1",
            "scheme": "wss" if head.scheme == "https" else "ws",
            "path": root_path + unquote(bare.decode("latin-1")),
            "raw_path": path,
            "query_string": query,
            "root_path": root_path,
            "headers": list(head.headers),
            "client": self._client,
            "server": local_address(self.transport),
            "subprotocols": list(opening.handshake.subprotocols),
            "path_params": {
                name: unquote(value.decode("latin-1")) for name, value in opening.parameters
            },
            "graphserve.path_params": opening.parameters,
            "graphserve.principal": opening.principal,
            "state": {},
            "extensions": {"websocket.http.response": {}},
        }

    # --- asyncio ---

    def connection_lost(self, exc: Exception | None) -> None:
        """End: the client is gone (asyncio)."""
        self.listener.connections.discard(self)
        self._timeouts.lost(self)
        self.flow.forget_end()
        for timer in self._timers.values():
            timer.cancel()
        self.discarding = True
        self._held.clear()
        self.flow.resume_writing()
        if exc is None:
            self.transport.close()
        if self._state == "asked":
            self._note(CLIENT_LEFT)
        elif self._state == "open":
            self._log_end(ABNORMAL)
        self._state = "closed"
        self._conversation.lose(ABNORMAL)

    def eof_received(self) -> None:
        """Note that the client sends no more: it is gone (asyncio)."""
        self._conversation.lose(ABNORMAL)

    def pause_writing(self) -> None:
        """Hold back what is sent: the client does not take it (asyncio)."""
        self.flow.pause_writing()
        self._behind = 0.0
        self._unsent_bytes = 0

    def resume_writing(self) -> None:
        """Go on: the client has taken enough (asyncio)."""
        self.flow.resume_writing()
        self._behind = 0.0
        self._read_on()

    def data_received(self, data: bytes) -> None:
        """Read frames, some at a time (asyncio)."""
        self._heard = True
        if self.discarding:
            return
        self._came += len(data)
        if len(data) > PORTION or self._held or self._is_held_back:
            self._held += data
            if not self._digesting:
                self._digest()
            return
        self._read(data)
        if self._is_held_back:
            self._hold_back()

    # --- what comes ---

    def _digest(self) -> None:
        """Read what is held, for a while; others have a turn then."""
        self._digesting = False
        # (the loop's own clock stands still meanwhile)
        end = time.perf_counter() + SLICE
        size = PORTION
        while self._held and not self._is_held_back:
            portion = bytes(self._held[:size])
            del self._held[:size]
            # of a long frame there may be more at once
            size = PORTION if self._read(portion) else LONG_PORTION
            if time.perf_counter() > end and self._held:
                self._digesting = True
                self.loop.call_soon(self._digest)
                break
        self._hold_back()

    def _read(self, data: bytes) -> bool:
        """Read bytes, and return whether a frame has ended in them."""
        protocol = self._protocol
        protocol.receive_data(data)
        frames = protocol.events_received()
        self.receiving = protocol.state is State.OPEN
        for frame in frames:
            if not isinstance(frame, Frame):  # (a request, which we read ourselves)
                continue
            if frame.opcode in _OF_MESSAGES:
                self._take(frame)
            else:
                self.receiving = bool(self._parts)
        self._flush()
        return bool(frames)

    @property
    def _is_held_back(self) -> bool:
        return (
            self._state in ("asked", "refusing")
            or self.flow.write_paused
            or self._conversation.full
            or self.discarding
        )

    def _hold_back(self) -> None:
        """Read from the client only while there is room for it."""
        if self.transport.is_closing():
            return
        if self.discarding:
            self.flow.resume_reading()
        elif self._digesting or self._is_held_back or len(self._held) > PORTION:
            self.flow.pause_reading()
            self.flow.watch_end(self.listener.readers)
        else:
            self.flow.resume_reading()

    def _read_on(self) -> None:
        if not self._digesting and not self.discarding:
            self._digesting = True
            self.loop.call_soon(self._digest)

    def _take(self, frame: Frame) -> None:
        """Take a frame of a message; give the message to the code when it is whole."""
        data = frame.data
        if frame.opcode is not Opcode.CONT:
            self._opcode = frame.opcode
            self._utf8.reset()
        if self._opcode is Opcode.TEXT and not (frame.fin and not self._parts):
            try:
                self._utf8.decode(data, frame.fin)
            except UnicodeDecodeError:
                self._fail(INVALID, "text that is not UTF-8")
                return
        if not frame.fin:
            self._parts += data
            self.receiving = True
            return
        if self._parts:
            data = bytes(self._parts + data)
            self._parts.clear()
        self.receiving = False
        self._behind = 0.0
        self._said = self.loop.time()
        message: Message = {"type": "websocket.receive"}
        if self._opcode is Opcode.TEXT:
            try:
                message["text"] = codecs.decode(data, "utf-8")
            except UnicodeDecodeError:
                self._fail(INVALID, "text that is not UTF-8")
                return
        else:
            message["bytes"] = bytes(data)
        self._conversation.hear(message, len(data))

    # --- what is sent (ASGI) ---

    async def send(self, message: Message) -> None:
        """Send what the application says, and wait while the client does not take it.

        Raises:
            OSError: the client is gone.
            RuntimeError: it is no message that ASGI allows here.
        """
        if self.flow.write_paused:
            await self.flow.drain()
        if self._conversation.lost or self.transport.is_closing():
            self._conversation.tell()
            raise ConnectionError("the client of the WebSocket is gone")
        kind = message["type"]
        if self._state == "asked":
            self._answer(kind, message)
        elif self._state == "refusing" and kind == "websocket.http.response.body":
            self._refuse_on(message.get("body", b""), message.get("more_body", False))
        elif self._state == "open" and kind == "websocket.send":
            self._send(message)
        elif self._state == "open" and kind == "websocket.close":
            self._close(int(message.get("code") or 1000), message.get("reason") or "")
        else:
            raise RuntimeError(f"the application sent {kind!r}, and the WebSocket is {self._state}")
        if self.flow.write_paused:
            await self.flow.drain()

    def _answer(self, kind: str, message: Message) -> None:
        fields: Headers = list(message.get("headers", ()))
        self._request_id = dict(fields).get(REQUEST_ID, b"")
        if kind == "websocket.accept":
            self.transport.write(self._handshake.accepted(message.get("subprotocol"), fields))
            self._state = "open"
            self._said = self.loop.time()
            self._note(101)
            self._begin_timers()
            self._read_on()
        elif kind == "websocket.close":
            self._refuse(HttpProblem(403, message.get("reason") or "the service refuses it"))
        elif kind == "websocket.http.response.start":
            self._begin_refusal(int(message["status"]), fields)
        else:
            raise RuntimeError(f"the application sent {kind!r} before it accepted the WebSocket")

    def _send(self, message: Message) -> None:
        self._said = self.loop.time()
        text = message.get("text")
        if text is not None:
            self._protocol.send_text(text.encode())
        else:
            self._protocol.send_binary(message["bytes"])
        self._flush()

    def _flush(self) -> None:
        """Write what the protocol has to say, and look whether it ends."""
        protocol = self._protocol
        for data in protocol.data_to_send():
            if data:
                self.transport.write(data)
            else:  # nothing comes behind it
                self._end()
        if protocol.state is not State.OPEN and self._state == "open":
            received = protocol.close_rcvd
            said = received or protocol.close_sent
            self._state = "closed"
            self._parts.clear()
            self.receiving = False
            code = ABNORMAL if said is None else said.code
            self._log_end(code)
            self._conversation.lose(
                code, "" if said is None else said.reason, orderly=received is not None
            )
            if not self.discarding:
                self._timers["close"] = self.loop.call_later(CLOSE_TIMEOUT, self._end)

    # --- the end ---

    def _close(self, code: int, reason: str) -> None:
        """Begin the closing handshake."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(code, reason)
            self._flush()
            self._read_on()

    def _fail(self, code: int, reason: str) -> None:
        """End it because of what the client does."""
        if self._protocol.state is State.OPEN:
            self._protocol.fail(code, reason)
            self._flush()

    def _end(self) -> None:
        """Close the connection behind what is written, which the client reads before a reset."""
        if self.transport.is_closing():
            return
        self.discarding = True
        self.receiving = False
        self._held.clear()
        self.flow.resume_reading()
        if self.transport.can_write_eof():  # not with TLS
            self.transport.write_eof()
            self._timers["linger"] = self.loop.call_later(LINGER, self.transport.close)
        else:
            self.transport.close()

    def _ended(self, error: BaseException | None) -> None:
        """Say what is left to be said: the application has ended."""
        if error is not None and not isinstance(error, asyncio.CancelledError):
            path = shown(self._head.target)
            records.note("graphserve.port", "error", f"the application failed at {path}", error)
        if self._conversation.lost or self.transport.is_closing():
            if self._state == "asked":
                self._end()
        elif self._state == "asked":
            self._refuse(HttpProblem(500, "the WebSocket was neither accepted nor refused"))
        elif self._state == "refusing":
            self.transport.close()  # cut off: the client sees that it is not whole
        elif self._state == "open":
            self._close(INTERNAL if error is not None else 1000, "")

    def _go_away(self, reason: str) -> None:
        """Close it: it has been open for long enough."""
        if self._state == "asked":
            node = self.listener.responder.node
            self._refuse(Unavailable(f"{node}: {reason}", node=node))
            self._conversation.lose(ABNORMAL)
        else:
            self._close(GOING_AWAY, reason)

    def _refuse(self, error: CallError) -> None:
        context = CallContext(self._request_id or new_request_id())
        status, data = self.listener.responder.problem(error, PUBLIC, context, keep=False)
        self._request_id = context.request_id
        self.transport.write(data)
        self._state = "closed"
        self._note(status)
        self._end()

    def _begin_refusal(self, status: int, fields: Headers) -> None:
        own = [field for field in fields if field[0].lower() != b"content-length"]
        length = [value for name, value in fields if name.lower() == b"content-length"]
        self._state = "refusing"
        self._in_pieces = not length
        dates = [field for field in self.listener.default_headers if field[0] == b"date"]
        lines = [
            b"HTTP/1.1 %d %b\r\n" % (status, phrase(status).encode()),
            *lines_of([*own, *dates]),
            *(b"content-length: %d\r\n" % int(value) for value in length[:1]),
            CLOSE,
            b"\r\n",
        ]
        self.transport.write(b"".join(lines))
        self._note(status)

    def _refuse_on(self, body: bytes, more: bool) -> None:
        self.transport.write(body)
        if not more:
            self._state = "closed"
            self._end()

    # --- the time ---

    def _begin_timers(self) -> None:
        limits = self._limits
        if limits.ping is not None:
            self._again("ping", limits.ping, self._ping)
        if limits.idle is not None:
            self._again("idle", limits.idle, self._look_at_silence)
        if limits.timeout is not None:
            timer = self.loop.call_later(limits.timeout, self._go_away, TIME_IS_OVER)
            self._timers["timeout"] = timer

    def _again(self, name: str, seconds: float, what: Callable[[], None]) -> None:
        self._timers[name] = self.loop.call_later(seconds, what)

    def _ping(self) -> None:
        if self._state != "open" or self._limits.ping is None:
            return
        if not self._heard and not self.flow.read_paused:
            self._fail(INTERNAL, "nothing came, not even an answer to a ping")
            return
        # (what is held back for us may be the answer)
        self._heard = False
        if not self.flow.write_paused:
            self._protocol.send_ping(b"")
            self._flush()
        self._again("ping", self._limits.ping, self._ping)

    def _look_at_silence(self) -> None:
        if self._state != "open" or self._limits.idle is None:
            return
        left = self._said + self._limits.idle - self.loop.time()
        if left > 0:
            self._again("idle", left, self._look_at_silence)
        else:
            self._go_away(f"nothing was said for {self._limits.idle:g} s")

    # --- of the listener and its timeouts ---

    @property
    def idle(self) -> bool:
        """Return whether a drain need not wait for it: it is closed, and its code has ended."""
        return self._conversation.over and self._state == "closed"

    @property
    def at_rest(self) -> bool:
        """Return whether a drain need not wait for it."""
        return self.idle

    def idle_before(self, moment: float) -> bool:
        """Return False: the port's own time of idle connections is not that of a WebSocket."""
        return False

    def close(self) -> None:
        """Close it when all that was written is sent."""
        self.transport.close()

    def close_after_answer(self) -> None:
        """Let it go on for the grace of a drain, and close it then."""
        if "grace" not in self._timers:
            rest = self._grace - min(LAST_WORDS, self._grace * SHARE_OF_GRACE)
            self._timers["grace"] = self.loop.call_later(rest, self._go_away, "it stops")

    def make_spare(self) -> None:
        """Do nothing: it has its place from when it was an ordinary connection."""

    def make_regular(self) -> None:
        """Do nothing, likewise."""

    @property
    def body_waits(self) -> bool:
        """Return whether the rest of a message waits for us, and not for the client."""
        return self.flow.read_paused

    def body_moved(self) -> int:
        """Return how many bytes have come since the last look."""
        before = self._counted
        self._counted = self._came
        return self._came - before

    def answers_moved(self) -> int:
        """Return how many bytes the client has taken since the last look."""
        before = self._unsent_bytes
        self._unsent_bytes = unsent_bytes(self.transport)
        return max(0, before - self._unsent_bytes)

    def note_progress(self, seconds: float, moved: int) -> float:
        """Note how many bytes have moved in these seconds, and return how many seconds the client
        is behind the least rate by now.
        """
        self._behind = max(0.0, self._behind + seconds - moved / LEAST_RATE)
        return self._behind

    def reject(self, problem: CallError) -> None:
        """End it because of what the timeouts have found."""
        self._fail(POLICY, f"a message came slower than {LEAST_RATE} bytes a second")

    # --- the access log ---

    def _note(self, status: int) -> None:
        """Count and log what its handshake has come to."""
        seconds = self.loop.time() - self._began
        series = self._series
        self._series = None
        if series is not None:
            series.end(status, int(seconds * 1e9))
        if not self.listener.access_log:
            return
        path = shown(self._head.target.partition(b"?")[0])
        log_answer("GET", path, status, self._request_id, seconds, self._client)

    def _log_end(self, code: int) -> None:
        if self.listener.access_log:
            seconds = self.loop.time() - self._began
            path = shown(self._head.target.partition(b"?")[0])
            log_answer("WEBSOCKET", path, code, self._request_id, seconds, self._client)
