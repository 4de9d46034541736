"""Draw the sample images and write down what they say.

Run it where it stands: `python make_images.py`.
"""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

HERE = Path(__file__).parent
PAPER, INK = (252, 250, 245), (25, 25, 30)

Cell = tuple[int, str]  # where it begins (x in px), what it says
# top (y in px), size of the letters (px), cells from left to right
Row = tuple[int, int, list[Cell]]

RECEIPT: list[Row] = [
    (28, 34, [(96, "CORNER BAKERY")]),
    (78, 20, [(112, "12 Mill Lane, Oxford")]),
    (134, 24, [(36, "2 Sourdough loaf"), (366, "9.00")]),
    (174, 24, [(36, "1 Almond croissant"), (366, "3.20")]),
    (214, 24, [(36, "3 Flat white"), (366, "8.85")]),
    (274, 30, [(36, "TOTAL"), (350, "21.05")]),
    (330, 20, [(36, "Card ending 4417")]),
    (364, 20, [(36, "Thank you, come again!")]),
]

INVOICE: list[Row] = [
    (40, 44, [(50, "INVOICE"), (560, "2041-A")]),
    (110, 24, [(50, "Northwind Paper Company"), (560, "14 March 2026")]),
    (146, 24, [(50, "8 Harbour Street, Bristol")]),
    (220, 24, [(50, "Description"), (430, "Quantity"), (570, "Price"), (690, "Amount")]),
    (268, 24, [(50, "Copy paper, 80 g, A4"), (430, "40"), (570, "4.75"), (690, "190.00")]),
    (308, 24, [(50, "Kraft envelopes, C5"), (430, "500"), (570, "0.12"), (690, "60.00")]),
    (348, 24, [(50, "Archive boxes"), (430, "25"), (570, "3.40"), (690, "85.00")]),
    (388, 24, [(50, "Delivery"), (430, "1"), (570, "15.00"), (690, "15.00")]),
    (452, 28, [(490, "Total due"), (680, "350.00")]),
    (520, 22, [(50, "Please pay within 30 days of the date above.")]),
    (554, 22, [(50, "Questions? Write to accounts@northwind.example")]),
]

LABEL: list[Row] = [
    (30, 40, [(40, "FRAGILE")]),
    (92, 26, [(40, "Handle with care")]),
    (132, 26, [(40, "This side up")]),
]


def page(width: int, height: int, rows: list[Row]) -> Image.Image:
    """A page of `width` by `height` px with rows of text."""
    image = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(image)
    for top, size, cells in rows:
        font = ImageFont.load_default(size)
        for left, text in cells:
            draw.text((left, top), text, INK, font)
    return image


def said(rows: list[Row]) -> list[str]:
    """What a page says, line by line, in reading order."""
    return [text for _, _, cells in rows for _, text in cells]


def on_a_desk(image: Image.Image, degrees: float) -> Image.Image:
    """A page that lies turned by `degrees`, counter-clockwise, on something grey."""
    return image.rotate(degrees, Image.Resampling.BICUBIC, expand=True, fillcolor=(150, 152, 155))


def main() -> None:
    receipt, invoice, label = (
        page(460, 410, RECEIPT),
        page(820, 610, INVOICE),
        page(400, 190, LABEL),
    )
    samples = {
        "receipt.png": (on_a_desk(receipt, 7), RECEIPT),
        "invoice.png": (invoice, INVOICE),
        "upside_down.png": (label.transpose(Image.Transpose.ROTATE_180), LABEL),
        "sideways.png": (label.transpose(Image.Transpose.ROTATE_90), LABEL),
    }
    for name, (image, _) in samples.items():
        image.quantize(64).save(HERE / "images" / name, optimize=True)
    expected = {name: said(rows) for name, (_, rows) in samples.items()}
    (HERE / "expected.json").write_text(json.dumps(expected, indent=2) + "\n")


if __name__ == "__main__":
    main()
