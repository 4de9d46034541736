"""The graph that passes arrays, on BentoML."""

import math
import time

import bentoml
import numpy as np

CALLS = 9
TUNED = {
    "runner_connection": {"max_requests": 10**9, "max_age": 1e9},
    "traffic": {"timeout": 300},
    "logging": {"access": {"enabled": False}},
}


@bentoml.service(workers=1, **TUNED)
class Adder:
    @bentoml.api
    async def total(self, array: np.ndarray) -> float:
        return float(array.sum())


@bentoml.service(workers=1, **TUNED)
class Arrays:
    adder = bentoml.depends(Adder)

    @bentoml.api
    async def tensor(self, mb: int) -> dict:
        array = np.random.default_rng(0).random(mb * 131_072)
        hops, here = [], []
        copy = np.empty_like(array)
        for _ in range(CALLS):
            began = time.perf_counter()
            total = await self.adder.to_async.total(array=array)
            hops.append(time.perf_counter() - began)
            began = time.perf_counter()
            np.copyto(copy, array)
            same = float(copy.sum())
            here.append(time.perf_counter() - began)
            # a sum of floats depends on how the array lies in memory
            assert math.isclose(total, same)
        return {"hop_ms": sorted(hops)[CALLS // 2] * 1e3, "here_ms": sorted(here)[CALLS // 2] * 1e3}
