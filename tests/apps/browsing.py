"""What a browser asks of a port: streams for EventSource, a WebSocket, a picture."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator

from PIL import Image
from starlette.websockets import WebSocket

from graphserve import api, service, websocket


@service
class Viewed:
    @api(method="GET")
    async def ticks(self, until: int, last_event_id: int = 0) -> AsyncIterator[int]:
        """Count; the worker dies in the midst of it, for a client that has come for the first
        time.
        """
        for number in range(last_event_id + 1, until + 1):
            yield number
            if number == until // 2 and not last_event_id:
                os.kill(os.getpid(), signal.SIGKILL)

    @api(method="GET")
    async def dot(self, width: int = 7) -> Image.Image:
        """Return a red picture."""
        return Image.new("RGB", (width, 3), "red")

    @api
    async def hello(self, name: str) -> str:
        return f"Hello {name}"

    @websocket
    async def talk(self, socket: WebSocket) -> None:
        await socket.accept()
        async for text in socket.iter_text():
            await socket.send_text(text.upper())
