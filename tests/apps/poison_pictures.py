"""Arrays that kill their worker: apart from the other calls, whose many workers need no numpy."""

from __future__ import annotations

import numpy as np
from poison import fatal  # beside this file, whose folder it is served from

from graphserve import api, service


@service(workers=1)
class Pictured:
    @api
    async def image(self, pixels: np.ndarray) -> int:
        fatal(int(pixels[0]))
        return int(pixels.size)
