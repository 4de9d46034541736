"""What people send and get, as both checkers see it: tables, tensors, pictures, files, classes of one's own. (PyTorch is
large: a stub stands for it.)"""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated

import polars as pl
import torch
from graphserve import Array, Media, api, depends, register_type, service
from PIL import Image


class Sound:
    def __init__(self, samples: bytes) -> None:
        self.samples = samples


def samples(sound: Sound) -> bytes:
    return sound.samples


register_type(Sound, media_type="audio/x-raw", encode=lambda sound: sound.samples, decode=Sound)
register_type(Sound, media_type="audio/x-raw", encode=bytes, decode=Sound)  # E: arg-type | reportArgumentType
register_type(Sound, media_type="audio/x-raw", encode=samples, decode=str)  # E: arg-type | reportArgumentType
register_type(Sound, encode=samples, decode=Sound)  # E: call-arg | reportCallIssue


@service
class Studio:
    @api
    async def filtered(self, table: pl.DataFrame, most: int = 3) -> pl.DataFrame:
        return table.head(most)

    @api
    async def embed(self, rows: Annotated[torch.Tensor, Array("bfloat16", (None, 2))]) -> dict[str, torch.Tensor]:
        return {"rows": rows}

    @api
    def converted(self, film: Annotated[Path, Media("video/*", max_size="2GB")]) -> Annotated[Path, Media("video/mp4")]:
        return film

    @api
    async def thumbnail(
        self, image: Image.Image, size: int = 64
    ) -> Annotated[Image.Image, Media("image/jpeg", quality=90)]:
        return image.resize((size, size))

    @api
    async def louder(self, sound: Sound) -> Sound:
        return sound

    @api
    async def copied(self, data: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in data:
            yield chunk

    @api
    def lines(self, data: Iterator[bytes]) -> Annotated[Iterator[str], Media("text/csv")]:
        for _ in data:
            yield ""


class Gateway:
    studio = depends(Studio)
    studios = depends.each(Studio, url={"here": "http://a", "there": "http://b"})


async def tables(gateway: Gateway, table: pl.DataFrame) -> None:
    reveal_type(await gateway.studio.filtered(table))  # R: DataFrame
    reveal_type(await gateway.studios["there"].filtered(table, most=1))  # R: DataFrame
    await gateway.studio.filtered([1])  # E: arg-type | reportArgumentType


async def tensors(gateway: Gateway) -> None:
    reveal_type(await gateway.studio.embed(torch.zeros(2)))  # R: dict[str, Tensor]
    await gateway.studio.embed([1.0])  # E: arg-type | reportArgumentType


async def files_on_disk(gateway: Gateway) -> None:
    reveal_type(await gateway.studio.converted(Path("a.avi")))  # R: Path
    await gateway.studio.converted("a.avi")  # E: arg-type | reportArgumentType


async def pictures(gateway: Gateway) -> None:
    with Image.open("a.png") as image:
        reveal_type(await gateway.studio.thumbnail(image))  # R: Image
    await gateway.studio.thumbnail(b"")  # E: arg-type | reportArgumentType


async def classes_of_ones_own(gateway: Gateway) -> None:
    reveal_type(await gateway.studio.louder(Sound(b"")))  # R: Sound


async def bodies(gateway: Gateway, data: AsyncIterator[bytes]) -> None:
    async for chunk in gateway.studio.copied(data):
        reveal_type(chunk)  # R: bytes
    async for line in gateway.studio.lines(iter([b""])):
        reveal_type(line)  # R: str


def media() -> None:
    Media("image/jpeg", quality=90)
    Media("image/*", max_size=1.5)  # E: arg-type | reportArgumentType
