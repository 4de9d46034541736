"""Workers that have processes of their own from their import on, and workers that get stuck beside
others.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import re
from multiprocessing.synchronize import SemLock
from pathlib import Path

from graphserve import api, depends, service

METHOD = os.environ.get("METHOD", "")
FOLDER = Path(os.environ.get("FOLDER", "."))


def double(x: int) -> int:
    return 2 * x


if METHOD and multiprocessing.current_process().name == "MainProcess":
    # (a forked process has what was there before)
    pool = multiprocessing.get_context(METHOD).Pool(3)
    locks = [each._semlock for each in gc.get_objects() if isinstance(each, SemLock)]
    # sem_overview(7); forked ones need none
    names = [f"/dev/shm/sem.{lock.name[1:]}" for lock in locks if lock.name]
    (FOLDER / f"names-{os.getpid()}").write_text("\n".join(names))


class Leaves:
    """Says when it is left."""

    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *exc: object) -> None:
        (FOLDER / f"left-{os.getpid()}").touch()


@service
class Leaf(Leaves):
    @api
    def double(self, x: int) -> list[int]:
        return pool.map(double, range(x))


@service
class Pooled(Leaves):
    leaf = depends(Leaf)

    @api
    async def double(self, x: int) -> list[int]:
        return await self.leaf.double(x)


@service(workers=3, graceful_timeout=1.0)
class Many(Leaves):
    @api(timeout=60)
    def search(self, text: str) -> bool:
        """A regular expression that needs years for some texts, and never gives the interpreter's
        lock away.
        """
        (FOLDER / f"stuck-{os.getpid()}").touch()
        return re.fullmatch(r"(a+)+", text) is not None

    @api
    async def pid(self) -> int:
        return os.getpid()
