"""Takes and gives pictures."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
from PIL import Image

import graphserve
from graphserve import Batch, api, depends, service


@dataclass
class Page:
    image: Image.Image
    number: int


@service
class Painter:
    @api
    def turn(self, image: Image.Image, degrees: int = 90) -> Image.Image:
        return image.rotate(degrees, expand=True)

    @api
    async def known(self, image: Image.Image) -> list[object]:
        return [image.mode, image.size, list(image.convert("RGB").getpixel((0, 0)) or ())]

    @api
    async def overwritten(self, image: Image.Image) -> list[object]:
        seen = image.getpixel((0, 0))
        image.frombytes(bytes(image.width * image.height * 3))  # Pillow asks nobody here
        return [seen, image.getpixel((0, 0)), os.getpid()]

    @api(batch=Batch(max_size=4, max_wait=0))
    def negatives(self, images: list[Image.Image]) -> list[Image.Image]:
        for caller in graphserve.requests():
            caller.answer.media_type = "application/pictures+json"
        return [image.point(lambda value: 255 - value) for image in images]

    @api
    async def frames(self, image: Image.Image) -> AsyncIterator[Image.Image]:
        yield image
        yield image


@service
class Pictures:
    painter = depends(Painter)
    http = depends(Painter, client=httpx.AsyncClient)

    @api
    async def turn(self, image: Image.Image, degrees: int = 90) -> Image.Image:
        return await self.painter.turn(image, degrees)

    @api
    async def known(self, image: Image.Image) -> list[object]:
        return await self.painter.known(image)

    @api
    async def negatives(self, images: list[Image.Image]) -> list[Image.Image]:
        return await self.painter.negatives(images)

    @api
    async def pages(self, pages: list[Page], cover: Image.Image | None = None) -> list[Page]:
        return [Page(page.image.copy(), page.number + 1) for page in pages]

    @api
    async def changed(self, image: Image.Image) -> Image.Image:
        image.putpixel((0, 0), (1, 2, 3))  # what came may be changed
        return image

    @api
    async def overwritten(self, count: int) -> list[list[object]]:
        pictures = [Image.new("RGB", (300, 200), (value, 0, 0)) for value in range(1, count + 1)]
        return [await self.painter.overwritten(picture) for picture in pictures]

    @api
    async def by_http(self, image: Image.Image) -> list[object]:
        answer = await self.http.post("/turn", files={"image": open_png()})
        return [
            answer.status_code,
            answer.headers["content-type"],
            answer.content[:4] == b"\x89PNG",
            (await self.http.post("/frames", files={"image": open_png()})).text.count('"iVBOR'),
            (await self.http.post("/negatives", files={"images": open_png()})).headers[
                "content-type"
            ],
        ]

    @api
    async def as_said(self, image: Image.Image, media_type: str) -> Image.Image:
        answer = graphserve.request().answer
        answer.status = 203
        answer.headers["x-size"] = str(image.width)
        if media_type:
            answer.media_type = media_type
        return image

    @api
    async def numbers(self) -> Image.Image:
        return Image.new("F", (2, 2))

    @api
    async def wrong(self) -> Image.Image:
        return "no image"  # type: ignore[return-value]

    @api
    async def frames(self, image: Image.Image, count: int = 2) -> AsyncIterator[Image.Image]:
        for number in range(count):
            yield image.rotate(90 * number, expand=True)

    @api
    async def is_imported(self) -> bool:
        return "PIL.Image" in sys.modules


def open_png() -> bytes:
    import io

    written = io.BytesIO()
    Image.new("RGB", (3, 2)).save(written, "PNG")
    return written.getvalue()
