"""An entry whose workers are slow to start, do not start, or block their loop, as the folder
`$FLAGS` says.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from calling import Answering  # beside this file, whose folder it is served from

from graphserve import Batch, api, service

FLAGS = Path(os.environ["FLAGS"])
(FLAGS / f"imported-{os.getpid()}").touch()


@service
class Entry(Answering):
    """The only node."""

    def __init__(self) -> None:
        if (FLAGS / "broken").exists():
            raise OSError("the disk is gone")
        while (FLAGS / "slow").exists():
            time.sleep(0.01)
        if (FLAGS / "fails").exists():
            raise OSError("the disk is full")

    @api(batch=Batch(max_size=4))
    def doubles(self, xs: list[int]) -> list[int]:
        """At a socket of its own."""
        return [2 * x for x in xs]

    @api
    def length(self, body: bytes) -> int:
        """A body of any kind."""
        return len(body)

    @api
    async def block(self) -> int:
        """Block the loop while the flag is there."""
        (FLAGS / "blocked").touch()
        while (FLAGS / "blocks").exists():
            time.sleep(0.01)  # noqa: ASYNC251
        return os.getpid()
