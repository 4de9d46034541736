"""The third model: what does a line say?"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from model import Model, Pixels

from graphserve import Batch, api, service

HEIGHT = 48  # px; what the model takes
STEP = 64  # px; lines are padded to a multiple of this, and those of one width run together
PADDING = 128  # grey: zero for the model
BLANK = 0  # the class that stands between two equal characters


@dataclass(frozen=True)
class Reading:
    """What a line says.

    Args:
        text: its characters.
        score: the mean probability of the characters, 0 to 1.
    """

    text: str
    score: float


@service(concurrency=1)
class Recognizer:
    """Reads lines of text (a CTC model: one class for each column of 8 pixels)."""

    def __init__(self) -> None:
        self.model = Model("PP-OCRv6_rec_small.onnx")
        self.alphabet = np.array(["", *self.model.metadata["character"].split("\n"), " "])

    @api(batch=Batch(max_size=8, max_wait=0.002), idempotent=True)
    def read(self, crops: list[Pixels]) -> list[Reading]:
        """Read lines of text.

        Args:
            crops: one upright line each, of any size.

        Returns:
            For each crop, what it says.
        """
        lines = [fitted(crop) for crop in crops]
        readings: dict[int, Reading] = {}
        for width in {line.shape[1] for line in lines}:
            alike = [i for i, line in enumerate(lines) if line.shape[1] == width]
            probability = self.model(np.stack([lines[i] for i in alike]))  # (n, columns, classes)
            readings.update(zip(alike, map(self.decode, probability), strict=True))
        return [readings[i] for i in range(len(crops))]

    def decode(self, probability: np.ndarray) -> Reading:
        """The text in one line's probabilities, shape (columns, classes): repeats fold, blanks
        vanish.
        """
        best = probability.argmax(axis=1)
        kept = (best != BLANK) & (np.diff(best, prepend=BLANK) != 0)
        score = probability.max(axis=1)[kept].mean() if kept.any() else 0.0
        return Reading("".join(self.alphabet[best[kept]]), float(score))


def fitted(crop: Pixels) -> Pixels:
    """A crop at the model's height, padded to a multiple of `STEP`: shape (48, width, 3)."""
    width = max(1, round(crop.shape[1] * HEIGHT / crop.shape[0]))
    line = cv2.resize(crop, (width, HEIGHT))
    return cv2.copyMakeBorder(
        line, 0, 0, 0, -width % STEP, cv2.BORDER_CONSTANT, value=(PADDING,) * 3
    )
