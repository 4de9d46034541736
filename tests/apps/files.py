"""Takes and gives files."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated

import httpx

import graphserve
from graphserve import Media, api, depends, register_type, service


class Sound:
    """A class that nobody knows how to send, until it is registered."""

    def __init__(self, samples: bytes) -> None:
        if samples.startswith(b"bad"):
            raise ValueError("these are no samples")
        self.samples = samples


class Rate:
    def __init__(self, hertz: int) -> None:
        self.hertz = hertz


register_type(Sound, media_type="audio/x-raw", encode=lambda sound: sound.samples, decode=Sound)
register_type(
    Rate,
    media_type="text/x-rate",
    encode=lambda rate: str(rate.hertz).encode(),
    decode=lambda data: Rate(int(data)),
    json=(lambda rate: rate.hertz, Rate),
)


@service(concurrency=1)
class Store:
    @api
    def louder(self, sound: Sound, times: int = 2) -> Sound:
        return Sound(sound.samples * times)

    @api
    def rates(self, rates: list[Rate]) -> dict[str, Rate]:
        return {str(rate.hertz): rate for rate in rates}

    @api
    async def measured(self, body: AsyncIterator[bytes], name: str, times: int = 1) -> list[object]:
        return [sum([len(piece) async for piece in body]), name, times]

    @api
    def plus(self, numbers: list[int]) -> int:
        return sum(numbers)

    @api
    def twice(self, data: bytes) -> bytes:
        return data + data

    @api
    def describe(
        self,
        image: bytes,
        times: int = 1,
        name: str = "",
        tags: list[str] | None = None,
        wide: bool = False,
    ) -> list[object]:
        return [len(image), times, name, tags, wide]


@service
class Sorted:
    """Says what its files may be, and what they are sent as."""

    def __init__(self) -> None:
        self.made = 0
        self.open = 0

    @api
    async def endless(self) -> AsyncIterator[bytes]:
        self.open += 1
        try:
            while True:
                self.made += 1
                yield bytes(65536)
        finally:
            self.open -= 1

    @api
    async def state(self) -> list[int]:
        return [self.made, self.open]

    @api
    async def echo(
        self, body: Annotated[AsyncIterator[bytes], Media("audio/*", max_size="1MB")]
    ) -> Annotated[AsyncIterator[bytes], Media("audio/wav")]:
        async for piece in body:
            yield piece
            yield b""

    @api
    def count(self, body: Iterator[bytes], most: int = 10**9) -> int:
        size = 0
        for piece in body:
            size += len(piece)
            if size > most:
                break
        return size

    @api
    def wav(
        self, audio: Annotated[bytes, Media("audio/*", "application/ogg", max_size=1000)]
    ) -> Annotated[bytes, Media("audio/wav")]:
        return audio

    @api
    async def pages(
        self, pages: list[Annotated[bytes, Media("image/png", max_size="1kB")]], title: str = ""
    ) -> Annotated[str, Media("text/html")]:
        return f"<h1>{title}</h1>{len(pages)}"

    @api
    def places(self, near: str = "") -> Annotated[dict[str, str], Media("application/geo+json")]:
        return {"type": near}


async def gated(body: AsyncIterator[bytes], gate: Path) -> AsyncIterator[bytes]:
    """Pass pieces on; behind the first one wait until a file is there, and say how it ended."""
    opened = gate.exists
    begun, left = (Path(f"{gate}.{what}").touch for what in ("begun", "left"))
    try:
        async for piece in body:
            yield piece
            begun()
            while not opened():  # noqa: ASYNC110  (another process makes it)
                await asyncio.sleep(0.01)
    except (ConnectionError, asyncio.CancelledError):
        left()
        raise


@service(workers=2, concurrency=1)
class Files:
    store = depends(Store)
    sorted = depends(Sorted)
    http = depends(Store, client=httpx.AsyncClient)

    @api
    async def twice(self, data: bytes) -> bytes:
        return await self.store.twice(data)

    @api
    async def describe(
        self,
        image: bytes,
        times: int = 1,
        name: str = "",
        tags: list[str] | None = None,
        wide: bool = False,
    ) -> list[object]:
        return await self.store.describe(image, times, name, tags, wide)

    @api
    async def by_http(self, data: bytes) -> list[object]:
        """Send the file as any client of HTTP would."""
        octets = {"accept": "application/octet-stream"}
        form = await self.http.post("/twice", files={"data": data}, headers=octets)
        raw = await self.http.post(
            "/describe", content=data, headers={"content-type": "a/b"}, params={"times": 3}
        )
        broken = await self.http.post(
            "/twice", content=data, headers={"content-type": "multipart/form-data"}
        )
        kind = form.headers["content-type"]
        streamed = [
            (await self.http.post("/measured", data={"name": "a"}, files={"body": data})).json(),
            (await self.http.post("/measured", files=[("body", data), ("name", "a")])).json()[
                "errors"
            ],
        ]
        listed = await self.http.post("/plus", data={"numbers": ["1", "2"]})
        return [
            form.content == data * 2,
            kind,
            raw.json()[:2],
            broken.status_code,
            listed.json(),
            streamed,
        ]

    @api
    async def kept(
        self,
        body: Annotated[AsyncIterator[bytes], Media(max_size="1MB")],
        name: str,
        times: int = 1,
        tags: list[str] | None = None,
        gate: str = "",
    ) -> list[object]:
        """Have the file counted below; with a gate, wait for it when the first piece has come."""
        size = await self.sorted.count(gated(body, Path(gate)) if gate else body)
        return [size, name, times, tags]

    @api
    def sizes(self, pages: list[bytes], names: list[str]) -> dict[str, int]:
        return dict(zip(names, map(len, pages), strict=True))

    @api
    async def halves(self, data: bytes) -> AsyncIterator[int]:
        yield len(data) // 2
        yield len(data) - len(data) // 2

    @api
    def optional(self, data: bytes | None = None) -> bool:
        return data is None

    @api
    def plain(self, x: int) -> int:
        return x

    @api(route="/shelves/{shelf}/values")
    def on_shelf(self, shelf: int, title: str, n: int = 1) -> list[object]:
        return [shelf, title, n]

    @api
    def values(
        self,
        count: int,
        on: bool = False,
        words: list[str] | None = None,
        none: str | None = None,
        day: dt.date | None = None,
        place: dict[str, str] | None = None,
    ) -> list[object]:
        return [count, on, words, none, day, place]

    @api
    def hold(self, gate: str) -> None:
        """Hold the only slot of one worker until a file is there."""
        Path(f"{gate}.begun").touch()
        while not Path(gate).exists():
            time.sleep(0.01)

    @api
    async def wav(
        self, audio: Annotated[bytes, Media("audio/*", "application/ogg", max_size=1000)]
    ) -> Annotated[bytes, Media("audio/wav")]:
        return await self.sorted.wav(audio)

    @api
    async def pages(
        self, pages: list[Annotated[bytes, Media("image/png", max_size="1kB")]], title: str = ""
    ) -> Annotated[str, Media("text/html")]:
        return await self.sorted.pages(pages, title)

    @api
    async def places(
        self, near: str = ""
    ) -> Annotated[dict[str, str], Media("application/geo+json")]:
        return await self.sorted.places(near)

    @api
    async def endless(self) -> AsyncIterator[bytes]:
        async for piece in self.sorted.endless():
            yield piece

    @api
    async def state(self) -> list[int]:
        return await self.sorted.state()

    @api
    async def echo(
        self, body: Annotated[AsyncIterator[bytes], Media("audio/*", max_size="1MB")]
    ) -> Annotated[AsyncIterator[bytes], Media("audio/wav")]:
        async for piece in self.sorted.echo(body):
            yield piece

    @api
    def count(self, body: Iterator[bytes], most: int = 10**9) -> int:
        return self.sorted.count(body, most).result()

    @api
    def rows(self, count: int = 2, wrong: int = -1) -> Annotated[Iterator[str], Media("text/csv")]:
        graphserve.request().answer.headers["x-rows"] = str(count)
        for number in range(count):
            if number == wrong:
                raise ValueError("this row is broken")
            yield f"{number},ü\n"

    @api
    async def of_a_type(self, media_type: str) -> AsyncIterator[bytes]:
        graphserve.request().answer.media_type = media_type
        yield b"a"
        yield b"b"

    @api
    async def louder(self, sound: Sound, times: int = 2) -> Sound:
        return await self.store.louder(sound, times)

    @api
    async def rates(self, rates: list[Rate]) -> dict[str, Rate]:
        return await self.store.rates(rates)

    @api
    async def sounds(self, sound: Sound | None = None) -> list[Sound]:
        return [] if sound is None else [sound, sound]
