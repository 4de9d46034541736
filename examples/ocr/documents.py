"""Documents of any kind, sorted into a table: here the gateway that reads images is a node."""

from __future__ import annotations

import asyncio
import io
from typing import Annotated, Literal

import pyarrow as pa
from app import Gateway as Ocr
from kinds import Kinds
from msgspec import Meta
from PIL import Image, UnidentifiedImageError

from graphserve import Problem, api, depends, service

MOST = 20  # documents in a call
LARGEST = 20_000_000  # pixels of an image
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF")


Source = Literal["image", "text"]


@service
class Documents:
    """Sorts documents."""

    ocr = depends(Ocr, name="Ocr")
    kinds = depends(Kinds)

    @api
    async def sort(
        self, files: Annotated[list[bytes], Meta(min_length=1, max_length=MOST)]
    ) -> pa.Table:
        """Tell what documents are, and what they say.

        Args:
            files: images, or text in UTF-8.

        Returns:
            A row a document: source ("image" or "text"), kind, score (how sure the model is of the
            kind, 0 to 1), text.

        Raises:
            Problem: 422 for a file that is neither.
        """
        calls = [self.read(number, file) for number, file in enumerate(files, 1)]
        read = await asyncio.gather(*calls)
        kinds = await self.kinds.tell([text for _, text in read])
        return pa.table(
            {
                "source": [source for source, _ in read],
                "kind": [kind.name for kind in kinds],
                "score": [kind.score for kind in kinds],
                "text": [text for _, text in read],
            }
        )

    async def read(self, number: int, file: bytes) -> tuple[Source, str]:
        """Where the text of a document comes from, and the text."""
        image = await asyncio.to_thread(decoded, number, file)
        if image is not None:
            return "image", "\n".join(line.text for line in await self.ocr.ocr(image))
        try:
            return "text", file.decode()
        except UnicodeDecodeError:
            raise unreadable(number, "neither an image nor text in UTF-8") from None


def decoded(number: int, file: bytes) -> Image.Image | None:
    """The image in a file, or None if it is no image."""
    too_large = unreadable(number, f"an image of more than {LARGEST:,} pixels")
    try:
        image = Image.open(io.BytesIO(file), formats=FORMATS)
        if image.width * image.height > LARGEST:  # known before anything is decoded
            raise too_large
        image.load()
    except UnidentifiedImageError:
        return None
    except Image.DecompressionBombError:
        raise too_large from None
    except (OSError, SyntaxError, ValueError):
        raise unreadable(number, "a broken image") from None
    return image


def unreadable(number: int, what: str) -> Problem:
    """What is said of a document that cannot be read."""
    return Problem(422, "Unreadable Document", detail=f"document {number} is {what}")
