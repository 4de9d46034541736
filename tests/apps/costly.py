"""An entry that gives back what it gets, once for each type in `tests.hostile.bodies`."""

from collections.abc import AsyncIterator
from typing import Any

import numpy as np

from graphserve import Batch, api, service
from tests.hostile.bodies import TYPES


def _giving_back(name: str, hint: Any) -> Any:
    async def give_back(self: Any, x: Any) -> Any:
        return x

    give_back.__name__ = name
    give_back.__qualname__ = f"Costly.{name}"
    give_back.__annotations__ = {"x": hint, "return": hint}
    return api(give_back)


@service(workers=1)
class Costly:
    for _name, _hint in TYPES.items():
        if _name != "rows":
            locals()[_name] = _giving_back(_name, _hint)

    @api(batch=Batch(max_size=32, max_wait=0.0))
    def rows(self, x: np.ndarray) -> np.ndarray:
        return x

    @api
    async def raw(self, x: bytes) -> int:
        return len(x)

    @api
    async def upload(self, x: AsyncIterator[bytes]) -> int:
        return sum([len(chunk) async for chunk in x])
