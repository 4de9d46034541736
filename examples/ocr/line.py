"""What the example answers: lines of text."""

from __future__ import annotations

from dataclasses import dataclass


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
