"""Lines of text as boxes on a page: which way they run, what is inside them, in which order one
reads them.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from detector import Boxes
from model import Pixels

# height / width from which a box holds a line that runs up or down, and not one wide letter
STANDING = 1.5


def along_text(boxes: Boxes) -> Boxes:
    """Boxes whose first side is the one that text runs along: a line that stands is read
    downwards.
    """
    across, down = sides(boxes)
    standing = (down > STANDING * across)[:, np.newaxis, np.newaxis]
    return np.where(standing, np.roll(boxes, -1, axis=1), boxes)


def turned_over(boxes: Boxes, which: list[bool]) -> Boxes:
    """Boxes of which some begin at the opposite corner."""
    return np.where(np.array(which)[:, np.newaxis, np.newaxis], np.roll(boxes, 2, axis=1), boxes)


def cut(page: Pixels, box: np.ndarray) -> Pixels:
    """What is in a box, shape (4, 2), made level: the first corner becomes the top left one."""
    width, height = (max(1, round(float(side))) for side in sides(box))
    level = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    transform = cv2.getPerspectiveTransform(box, level)
    size, smooth, edge = (width, height), cv2.INTER_CUBIC, cv2.BORDER_REPLICATE
    return cv2.warpPerspective(page, transform, size, flags=smooth, borderMode=edge)


def reading_order(boxes: Boxes) -> list[int]:
    """The indexes of boxes row by row, each row from its beginning, along the direction of most of
    the text.
    """
    x, y = (boxes[:, 1] - boxes[:, 0]).sum(axis=0).tolist()
    length = math.hypot(x, y) or 1.0
    centers = boxes.mean(axis=1)
    across = centers @ np.array([x, y]) / length
    down = centers @ np.array([-y, x]) / length
    half = sides(boxes)[1] / 2
    rows: list[list[int]] = []
    for i in np.argsort(down).tolist():
        if rows and down[i] - down[rows[-1][0]] < half[i]:
            rows[-1].append(i)
        else:
            rows.append([i])
    return [i for row in rows for i in sorted(row, key=across.__getitem__)]


def sides(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lengths of the first and of the second side of boxes, shape (…, 4, 2)."""
    first, second, third = boxes[..., 0, :], boxes[..., 1, :], boxes[..., 2, :]
    return np.linalg.norm(second - first, axis=-1), np.linalg.norm(third - second, axis=-1)
