"""Text from an image: a gateway over three models, each a service with processes of its own."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import cv2
import numpy as np
from classifier import Classifier
from detector import Boxes, Detector
from geometry import along_text, cut, reading_order, turned_over
from model import Image
from recognizer import Recognizer

from graphserve import Problem, api, depends, service

LARGEST = 50_000_000  # pixels of an image
LEGIBLE = 0.6  # score from which a line is answered
# lines in one call: what the recognizer executes at once, so that several workers share a page
TOGETHER = 8


@dataclass(frozen=True)
class Line:
    """A line of text in an image.

    Args:
        text: what it says.
        score: how sure the recognizer is, 0 to 1.
        box: its four corners (x, y) in pixels of the image, clockwise; the first is where the text
            begins.
    """

    text: str
    score: float
    box: list[tuple[float, float]]


# OpenCV refuses a larger image by its header, before it takes the memory.
@service(env={"OPENCV_IO_MAX_IMAGE_PIXELS": str(LARGEST)})
class Gateway:
    """Reads the text in an image."""

    detector = depends(Detector)
    classifier = depends(Classifier)
    recognizer = depends(Recognizer)

    @api
    async def ocr(self, image: bytes) -> list[Line]:
        """Read the text in an image.

        Args:
            image: a PNG, JPEG, WebP, BMP or TIFF file.

        Returns:
            The lines in the order in which one reads them, whichever way the page was turned.

        Raises:
            Problem: 415 for what is no image, 413 for one of more than 50 million pixels.
        """
        page = await asyncio.to_thread(decoded, image)
        boxes = along_text(await self.detector.detect(page))
        groups = [boxes[start : start + TOGETHER] for start in range(0, len(boxes), TOGETHER)]
        # Side by side: the recognizer reads one group while the classifier looks at the next.
        read = await asyncio.gather(*(self.read(page, group) for group in groups))
        lines = [line for group in read for line in group if line.score >= LEGIBLE]
        order = reading_order(np.array([line.box for line in lines]).reshape(-1, 4, 2))
        return [lines[i] for i in order]

    async def read(self, page: Image, boxes: Boxes) -> list[Line]:
        """Cut lines out of a page, turn them upright and read them."""
        crops = await asyncio.to_thread(lambda: [cut(page, box) for box in boxes])
        turned = await self.classifier.upside_down(crops)
        upright = [
            cv2.rotate(crop, cv2.ROTATE_180) if over else crop
            for crop, over in zip(crops, turned, strict=True)
        ]
        readings = await self.recognizer.read(upright)
        found = zip(readings, turned_over(boxes, turned).tolist(), strict=True)
        return [
            Line(r.text, round(r.score, 4), [(round(x, 1), round(y, 1)) for x, y in box])
            for r, box in found
        ]


def decoded(file: bytes) -> Image:
    """The pixels of an image file."""
    too_large = Problem(413, "Image Too Large", detail=f"an image has {LARGEST:,} pixels at most")
    try:
        image = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR) if file else None
    except cv2.error:
        raise too_large from None
    if image is None:
        raise Problem(
            415, "Not An Image", detail="the body is no PNG, JPEG, WebP, BMP or TIFF file"
        )
    # under local(), where a node has no environment of its own
    if image.shape[0] * image.shape[1] > LARGEST:
        raise too_large
    return image
