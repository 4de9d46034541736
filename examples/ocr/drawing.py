"""Lines of text drawn: frames around them, and their words beside the image."""

from __future__ import annotations

import math

from line import Line
from PIL import Image, ImageDraw, ImageFont

FRAME = "#2563eb"
FILLED = 0.8  # how much of a box's height its text takes


def drawn(page: Image.Image, lines: list[Line]) -> Image.Image:
    """An image with frames around its lines, and their words beside it, each at its place."""
    sheet = Image.new("RGB", (2 * page.width, page.height), "white")
    sheet.paste(page, (0, 0))
    pen = ImageDraw.Draw(sheet)
    for line in lines:
        pen.polygon(line.box, outline=FRAME, width=max(1, min(page.size) // 250))
        words = written(line)
        x, y = (sum(corner[axis] for corner in line.box) / 4 for axis in (0, 1))
        place = round(page.width + x - words.width / 2), round(y - words.height / 2)
        sheet.paste("black", place, words)
    return sheet


def written(line: Line) -> Image.Image:
    """The words of a line as large as its box, and as tilted: the ink of each pixel."""
    begin, end, below = line.box[:3]
    width, height = math.dist(begin, end), math.dist(end, below)
    size = FILLED * height
    size *= min(1.0, width / max(1.0, ImageFont.load_default(size).getlength(line.text)))
    ink = Image.new("L", (math.ceil(width), math.ceil(height)))
    middle = 0, height / 2
    font = ImageFont.load_default(max(1.0, size))
    ImageDraw.Draw(ink).text(middle, line.text, fill=255, font=font, anchor="lm")
    tilt = math.degrees(math.atan2(end[1] - begin[1], end[0] - begin[0]))
    return ink.rotate(-tilt, Image.Resampling.BICUBIC, expand=True)
