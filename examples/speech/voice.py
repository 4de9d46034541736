"""The second model: how high is a voice?"""

from __future__ import annotations

import numpy as np
from sound import RATE, Samples

from graphserve import api, service

WINDOW = 1024  # samples that are looked at together: 64 ms
LOWEST, HIGHEST = 70, 350  # Hz
CLEAR = 0.5  # how much a window has to be like itself one period later


@service(concurrency=1)
class Voice:
    """Measures the pitch of a voice, by what a sound has in common with itself a period later."""

    @api(idempotent=True)
    def pitch(self, samples: Samples) -> int | None:
        """The middle of a voice's pitch in Hz, or None if it has none."""
        windows = samples[: len(samples) // WINDOW * WINDOW].reshape(-1, WINDOW)
        found = [period for window in windows if (period := period_of(window))]
        return round(RATE / float(np.median(found))) if found else None


def period_of(window: np.ndarray) -> int | None:
    """After how many samples a sound repeats itself, or None if it does not."""
    centered = window - window.mean()
    power = np.abs(np.fft.rfft(centered, 2 * WINDOW)) ** 2
    likeness = np.fft.irfft(power)[: RATE // LOWEST]
    first = RATE // HIGHEST
    best = first + int(likeness[first:].argmax())
    return best if likeness[best] > CLEAR * likeness[0] else None
