"""Text from an image: a gateway over three models, each a service with processes of its own."""

from __future__ import annotations

import asyncio

import cv2
import numpy as np
from classifier import Classifier
from detector import Boxes, Detector
from drawing import drawn
from geometry import along_text, cut, reading_order, turned_over
from line import Line
from model import Pixels
from PIL import Image, ImageOps
from recognizer import Recognizer

from graphserve import api, depends, service

LEGIBLE = 0.6  # score from which a line is answered
# lines in one call: what the recognizer executes at once, so that several workers share a page
TOGETHER = 8


@service(mount={"/": "page"})
class Gateway:
    """Reads the text in an image; its page in a browser is the folder `page`."""

    detector = depends(Detector)
    classifier = depends(Classifier)
    recognizer = depends(Recognizer)

    @api
    async def ocr(self, image: Image.Image) -> list[Line]:
        """Read the text in an image.

        Args:
            image: a PNG, JPEG, WebP, GIF, BMP or TIFF file.

        Returns:
            The lines in the order in which one reads them, whichever way the page was turned.
        """
        return await self.lines(await asyncio.to_thread(upright, image))

    @api
    async def annotate(self, image: Image.Image) -> Image.Image:
        """Frame the lines of text in an image, and write what they say beside it.

        Args:
            image: as for `ocr`.

        Returns:
            An image of twice the width.
        """
        page = await asyncio.to_thread(upright, image)
        return await asyncio.to_thread(drawn, page, await self.lines(page))

    async def lines(self, image: Image.Image) -> list[Line]:
        """The lines of text in an upright image."""
        page = await asyncio.to_thread(cv2.cvtColor, np.asarray(image), cv2.COLOR_RGB2BGR)
        boxes = along_text(await self.detector.detect(page))
        groups = [boxes[start : start + TOGETHER] for start in range(0, len(boxes), TOGETHER)]
        # Side by side: the recognizer reads one group while the classifier looks at the next.
        read = await asyncio.gather(*(self.read(page, group) for group in groups))
        lines = [line for group in read for line in group if line.score >= LEGIBLE]
        order = reading_order(np.array([line.box for line in lines]).reshape(-1, 4, 2))
        return [lines[i] for i in order]

    async def read(self, page: Pixels, boxes: Boxes) -> list[Line]:
        """Cut lines out of a page, turn them upright and read them."""
        crops = await asyncio.to_thread(lambda: [cut(page, box) for box in boxes])
        turned = await self.classifier.upside_down(crops)
        level = [
            cv2.rotate(crop, cv2.ROTATE_180) if over else crop
            for crop, over in zip(crops, turned, strict=True)
        ]
        readings = await self.recognizer.read(level)
        found = zip(readings, turned_over(boxes, turned).tolist(), strict=True)
        return [
            Line(r.text, round(r.score, 4), [(round(x, 1), round(y, 1)) for x, y in box])
            for r, box in found
        ]


def upright(image: Image.Image) -> Image.Image:
    """An image in plain colors, turned as the camera that took it was held."""
    return ImageOps.exif_transpose(image).convert("RGB")
