"""The first model: where in an image is text?"""

from __future__ import annotations

import math
from typing import Annotated

import cv2
import numpy as np
from model import Model, Pixels

from graphserve import Array, api, service

Boxes = Annotated[np.ndarray, Array(dtype="float32", shape=(None, 4, 2))]
"""Lines of text: for each its four corners (x, y) in pixels, clockwise."""

LONGEST_SIDE = 1280  # px; a larger image is shrunk for the model
STRIDE = 32  # px; the model takes sides that are multiples of this
TEXT = 0.3  # probability from which a pixel is text
CONFIDENT = 0.5  # mean probability from which a region is text
SMALLEST = 3.0  # px; a region with a shorter side is noise
GROWTH = 1.6  # the model marks the core of a line: how far to grow it, in units of area / perimeter


@service(concurrency=1)
class Detector:
    """Finds the lines of text in an image (a DB segmentation model: one probability a pixel)."""

    def __init__(self) -> None:
        self.model = Model("PP-OCRv6_det_small.onnx")

    @api(idempotent=True)
    def detect(self, image: Pixels) -> Boxes:
        """Find the lines of text.

        Args:
            image: of any size; a large one is looked at in reduced size.

        Returns:
            The lines in no particular order, the top left corner of each first. Lines may be
            tilted, and corners may lie a little outside the image.
        """
        scale = min(1.0, LONGEST_SIDE / max(image.shape[:2]))
        return regions(self.model(padded(image, scale))[0, 0]) / np.float32(scale)


def padded(image: Pixels, scale: float) -> np.ndarray:
    """`image` scaled, and grown at the right and the bottom to what the model takes: shape (1, h,
    w, 3).
    """
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    scaled = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    grown = cv2.copyMakeBorder(
        scaled, 0, -height % STRIDE, 0, -width % STRIDE, cv2.BORDER_REPLICATE
    )
    return grown[np.newaxis]


def regions(probability: np.ndarray) -> Boxes:
    """The regions of text in a map of probabilities, shape (height, width)."""
    mask = (probability > TEXT).astype(np.uint8)
    contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    found = []
    for contour in contours:
        (x, y), (width, height), degrees = cv2.minAreaRect(contour)
        if min(width, height) < SMALLEST or inside(probability, contour) < CONFIDENT:
            continue
        # twice GROWTH * area / perimeter: once a side
        growth = GROWTH * width * height / (width + height)
        found.append(corners((x, y), width + growth, height + growth, degrees))
    return np.array(found, np.float32).reshape(-1, 4, 2)


def inside(probability: np.ndarray, contour: np.ndarray) -> float:
    """The mean probability inside a contour."""
    x, y, width, height = cv2.boundingRect(contour)
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [contour - (x, y)], 1)
    return cv2.mean(probability[y : y + height, x : x + width], mask)[0]


def corners(center: tuple[float, float], width: float, height: float, degrees: float) -> np.ndarray:
    """The corners of a rectangle, shape (4, 2), clockwise from the top left one; its tilt is read
    as -45°…45°.
    """
    quarters = round(degrees / 90)
    if quarters % 2:
        width, height = height, width
    tilt = math.radians(degrees - 90 * quarters)
    right = np.array([math.cos(tilt), math.sin(tilt)]) * width / 2
    down = np.array([-math.sin(tilt), math.cos(tilt)]) * height / 2
    return np.array([-right - down, right - down, right + down, down - right]) + center
