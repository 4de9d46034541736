"""The graph that passes arrays, as graphserve services; apart, because it needs numpy.

Runs in graphserve's workers.
"""

from __future__ import annotations

import math
import time

import numpy as np

from graphserve import api, depends, service

CALLS = 9
FLOATS_PER_MB = 131_072


@service
class Adder:
    @api
    async def total(self, array: np.ndarray) -> float:
        return float(array.sum())


@service
class Arrays:
    adder = depends(Adder)

    @api
    async def tensor(self, mb: int) -> dict[str, float]:
        """Milliseconds of a hop with an array that is summed below, and of a copy and a sum here;
        medians, warm.
        """
        array = np.random.default_rng(0).random(mb * FLOATS_PER_MB)
        hops, here = [], []
        copy = np.empty_like(array)
        for _ in range(CALLS):
            began = time.perf_counter()
            total = await self.adder.total(array)
            hops.append(time.perf_counter() - began)
            began = time.perf_counter()
            np.copyto(copy, array)
            same = float(copy.sum())
            here.append(time.perf_counter() - began)
            # a sum of floats depends on how the array lies in memory
            assert math.isclose(total, same)
        return {"hop_ms": sorted(hops)[CALLS // 2] * 1e3, "here_ms": sorted(here)[CALLS // 2] * 1e3}
