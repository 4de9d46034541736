"""`python -m tests.benchmarks.pictures`: what a picture of 12 megapixels costs over a hop, beside
arrays of as many bytes, turn by turn in one run.

Also a graph, which runs in graphserve's workers.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial

import numpy as np
from PIL import Image

import graphserve
from graphserve import api, depends, service

SIZE = 4000, 3000
SHAPES = {"array of its bytes (3 a pixel)": 3, "array of its memory (4 a pixel)": 4}


@service
class Taker:
    @api
    async def picture(self, image: Image.Image) -> int:
        return image.width

    @api
    async def array(self, array: np.ndarray) -> int:
        return len(array)


@service
class Pictures:
    taker = depends(Taker)

    @api
    async def measure(self, mode: str, rounds: int) -> dict[str, dict[str, float]]:
        """Median and least milliseconds of each way, and how long the loop is held at most."""
        image = Image.effect_noise(SIZE, 99).convert(mode)
        bytes_of = {name: np.full((*SIZE, n), 7, np.uint8) for name, n in SHAPES.items()}
        calls = {name: partial(self.taker.array, array) for name, array in bytes_of.items()}
        calls["picture"] = partial(self.taker.picture, image)
        took: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
        for _ in range(rounds):
            for name, call in calls.items():
                took[name].append((await timed(call), await held(call)))
        return {name: figures(each[1:]) for name, each in took.items()}


def figures(took: list[tuple[float, float]]) -> dict[str, float]:
    """The median and the least time of a hop, and the median of how long the loop is held; in
    ms.
    """
    times, pauses = (sorted(each) for each in zip(*took, strict=True))
    middle = len(took) // 2
    return {
        "median": times[middle] * 1e3,
        "least": times[0] * 1e3,
        "held": pauses[middle] * 1e3,
    }


async def timed(call: Callable[[], Awaitable[object]]) -> float:
    """Seconds that a call took."""
    began = time.perf_counter()
    await call()
    return time.perf_counter() - began


async def held(call: Callable[[], Awaitable[object]]) -> float:
    """Seconds of CPU that the thread of the loop worked at most in one go, while a call was made."""
    most = 0.0
    before = time.thread_time()

    async def look() -> None:
        nonlocal most, before
        while True:
            await asyncio.sleep(0.001)
            now = time.thread_time()
            most = max(most, now - before)
            before = now

    looking = asyncio.create_task(look())
    await asyncio.sleep(0.005)
    most = 0.0
    await call()
    await asyncio.sleep(0.003)
    looking.cancel()
    return most


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--mode", default="RGB")
    given = parser.parse_args()
    with graphserve.serve("tests.benchmarks.pictures:Pictures", port=0) as server:
        found = server.call.measure(given.mode, given.rounds).result()
    for name, each in found.items():
        print(f"{name:34}" + "".join(f"{key} {value:8.2f} ms  " for key, value in each.items()))
    for name in SHAPES:
        for key in ("median", "least"):
            print(f"picture / {name}, {key}: {found['picture'][key] / found[name][key]:.2f}")


if __name__ == "__main__":
    main()
