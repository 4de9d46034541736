"""What a client and the code that serves it say to each other over a WebSocket: the messages that
wait, and what becomes of the code when the client is gone.

Runs in entry workers and in `local()`; it knows no frames.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from graphserve.worker.http.asgi import AsgiApp, Message, Scope, Send

HIGH_BYTES = 64 * 1024  # of messages that wait for the code, before the client is held back
OVERHEAD = 256  # bytes that a message takes beside its own
# seconds after which code that was not told that its client is gone is cancelled: what it is about
# to end may end, and who waits for a message hears it
NOTICE = 0.05


class Conversation:
    """Runs an ASGI application for one WebSocket, and gives it what its client says.

    Code that asks for the next message hears that the client is gone, and has time to end. All
    other code is cancelled.

    Args:
        app: the application.
        scope: what it is told of the handshake.
        send: takes what it says.
        patience: seconds that it has to end once it was told that the client is gone.
        on_room: called when it has taken enough of what waits.
        on_end: called when it has ended, with what it raised.
    """

    def __init__(
        self,
        app: AsgiApp,
        scope: Scope,
        send: Send,
        *,
        patience: float,
        on_room: Callable[[], None],
        on_end: Callable[[BaseException | None], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._app = app
        self._scope = scope
        self._send = send
        self._patience = patience
        self._on_room = on_room
        self._on_end = on_end
        # what waits for the application
        self._messages: deque[tuple[Message, int]] = deque([({"type": "websocket.connect"}, 0)])
        self._bytes = 0
        self._changed = asyncio.Event()
        self._changed.set()
        # the end
        self._end: Message | None = None
        self._told = False
        self._latest = 0.0  # when it is cancelled, whatever is unread, on the loop's clock
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self.over = False  # whether the application has ended

    def begin(self) -> None:
        """Run the application."""
        self._task = self._loop.create_task(self._run())

    # --- of the client ---

    def hear(self, message: Message, size: int) -> None:
        """Take a message of the client.

        Args:
            message: of ASGI.
            size: its bytes.
        """
        if self._end is None and not self.over:
            self._messages.append((message, size + OVERHEAD))
            self._bytes += size + OVERHEAD
            self._changed.set()

    @property
    def full(self) -> bool:
        """Return whether so much waits that the client is to be held back."""
        return self._bytes >= HIGH_BYTES and self._end is None and not self.over

    def lose(self, code: int, reason: str = "", *, orderly: bool = False) -> None:
        """Note that the client is gone; the first word counts.

        Args:
            code: of the close frame; 1006 without one.
            reason: likewise.
            orderly: whether it has said so itself: then what it had said before is read first.
        """
        if self._end is not None:
            return
        self._end = {"type": "websocket.disconnect", "code": code, "reason": reason}
        self._changed.set()
        if not self.over:
            self._latest = self._loop.time() + self._patience
            self._timer = self._loop.call_later(NOTICE, self._look, orderly)

    @property
    def lost(self) -> bool:
        """Return whether the client is gone."""
        return self._end is not None

    def tell(self) -> None:
        """Note that the application knows that the client is gone: it could not send."""
        self._told = True

    # --- of the application ---

    async def receive(self) -> Message:
        """Return the next message, or that the client is gone (ASGI)."""
        while not self._messages and self._end is None:
            self._changed.clear()
            await self._changed.wait()
        if not self._messages:
            assert self._end is not None
            self._told = True
            return self._end
        was_full = self.full
        message, size = self._messages.popleft()
        self._bytes -= size
        if was_full and not self.full:
            self._on_room()
        return message

    async def _run(self) -> None:
        error: BaseException | None = None
        try:
            await self._app(self._scope, self.receive, self._send)
        except BaseException as exc:  # whatever it is, the client is told
            error = exc
        finally:
            self.over = True
            self._messages.clear()
            self._bytes = 0
            if self._timer is not None:
                self._timer.cancel()
            self._on_end(error)

    def _look(self, orderly: bool) -> None:
        left = self._latest - self._loop.time()
        if left > 0 and self._told:
            self._timer = self._loop.call_later(left, self.cancel)
        elif left > 0 and orderly and self._messages:
            self._timer = self._loop.call_later(min(left, NOTICE), self._look, orderly)
        else:
            self.cancel()

    def cancel(self) -> None:
        """Cancel the application."""
        if self._task is not None:
            self._task.cancel()
