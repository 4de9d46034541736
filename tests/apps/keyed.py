"""What the request in hand tells, at a port that wants API keys; starts slowly while `$FLAGS/slow`
is there.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from in_hand import Top, described  # beside this file, whose folder it is served from
from starlette.websockets import WebSocket

import graphserve
from graphserve import service, websocket

FLAGS = Path(os.environ["FLAGS"])


@service(workers=2, concurrency=1, forward_headers=["x-tenant", "authorization"])
class Keyed(Top):
    def __init__(self) -> None:
        while (FLAGS / "slow").exists():
            time.sleep(0.01)
        super().__init__()

    @websocket
    async def talk(self, socket: WebSocket) -> None:
        await socket.accept()
        below = await self.below(how="")
        await socket.send_json([described(graphserve.request())["principal"], below["principal"]])
