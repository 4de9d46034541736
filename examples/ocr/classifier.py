"""The second model: which lines are upside down?"""

from __future__ import annotations

import cv2
import numpy as np
from model import Model, Pixels

from graphserve import Batch, api, service

HEIGHT, WIDTH = 48, 192  # px; what the model takes
PADDING = 128  # grey: zero for the model
CERTAIN = 0.9  # probability from which a line is turned


@service(concurrency=1)
class Classifier:
    """Tells lines of text that stand upright from those that were turned by 180°."""

    def __init__(self) -> None:
        self.model = Model("ch_ppocr_mobile_v2.0_cls_mobile.onnx")

    @api(batch=Batch(max_size=32, max_wait=0.002), idempotent=True)
    def upside_down(self, crops: list[Pixels]) -> list[bool]:
        """Tell which lines are upside down.

        Args:
            crops: one line of text each, of any size.

        Returns:
            For each crop, whether it has to be turned by 180°.
        """
        # (n, 2): upright, turned
        probability = self.model(np.stack([fitted(crop) for crop in crops]))
        return [bool(turned >= CERTAIN) for turned in probability[:, 1]]


def fitted(crop: Pixels) -> Pixels:
    """The beginning of a crop at the model's height, padded to its width: shape (48, 192, 3)."""
    beginning = crop[:, : crop.shape[0] * WIDTH // HEIGHT]
    width = max(1, round(beginning.shape[1] * HEIGHT / beginning.shape[0]))
    line = cv2.resize(beginning, (width, HEIGHT))
    return cv2.copyMakeBorder(
        line, 0, 0, 0, WIDTH - width, cv2.BORDER_CONSTANT, value=(PADDING,) * 3
    )
