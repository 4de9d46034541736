"""What the services share: the sound, which comes in chunks of any size and is heard in frames."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from typing import Annotated

import numpy as np

from graphserve import Array, Problem

RATE = 16000  # samples in a second
FRAME = 512  # samples that are heard at once
SAMPLE = 2  # bytes

Samples = Annotated[np.ndarray, Array(dtype="int16", shape=(None,))]

_HEADER = 4096  # bytes; a longer header of a WAV file is refused
_WANTED = "sound is 16-bit samples of one channel, 16,000 a second: as they are, or as a WAV file"


async def frames(sound: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The whole frames of a sound, without the header of a WAV file.

    Args:
        sound: in chunks of any size.

    Raises:
        Problem: 415 for a WAV file with samples of another kind.
    """
    size = FRAME * SAMPLE
    waiting, begun = b"", False
    async for chunk in sound:
        waiting += chunk
        if not begun:
            start = _start(waiting)
            if start is None:
                continue
            waiting, begun = waiting[start:], True
        whole = len(waiting) // size * size
        for place in range(0, whole, size):
            yield waiting[place : place + size]
        waiting = waiting[whole:]


def _start(head: bytes) -> int | None:
    """Where the samples begin, or None while that is not known."""
    if len(head) < 12:
        return None
    if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
        return 0
    place = 12
    while place + 8 <= min(len(head), _HEADER):
        name, size = struct.unpack_from("<4sI", head, place)
        place += 8
        if name == b"data":
            return place
        if name == b"fmt " and place + 16 <= len(head):
            _, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", head, place)
            if (channels, rate, bits) != (1, RATE, 8 * SAMPLE):
                raise Problem(415, "Other Sound", detail=_WANTED)
        place += size + size % 2
    if place + 8 > _HEADER:
        raise Problem(415, "No Sound", detail=f"no samples in the first {_HEADER} bytes; {_WANTED}")
    return None
