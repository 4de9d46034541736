"""Who speaks when: a gateway that listens while a sound comes in, over two models."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass

from detector import PATIENCE, Detector
from starlette.websockets import WebSocket
from voice import Voice

from graphserve import api, depends, service, websocket


@dataclass(frozen=True)
class Heard:
    """Somebody speaks, or has spoken.

    Args:
        start: when it began, in seconds of the sound.
        end: when it ended; None while it goes on.
        pitch: of the voice, in Hz; None while it goes on, and for a whisper.
    """

    start: float
    end: float | None = None
    pitch: int | None = None


@service(mount={"/": "page"})
class Gateway:
    """Tells who speaks when; its page in a browser is the folder `page`."""

    detector = depends(Detector)
    voice = depends(Voice)

    @api(timeout=PATIENCE)
    async def listen(self, sound: AsyncIterator[bytes]) -> AsyncIterator[Heard]:
        """Tell who speaks when, while the sound still comes in.

        Args:
            sound: a WAV file, or its samples alone: 16-bit, one channel, 16,000 a second.

        Yields:
            Each speech twice: as soon as it begins, and when it has ended.
        """
        async for speech in self.detector.listen(sound):
            if speech.end is None:
                yield Heard(speech.start)
            else:
                pitch = await self.voice.pitch(speech.samples)
                yield Heard(speech.start, speech.end, pitch)

    @websocket(idle=PATIENCE)
    async def talk(self, socket: WebSocket) -> None:
        """Tell the same over a WebSocket: sound comes in binary messages, an empty one ends it."""
        await socket.accept()
        async for heard in self.listen(spoken(socket)):
            await socket.send_json(asdict(heard))


async def spoken(socket: WebSocket) -> AsyncIterator[bytes]:
    """The binary messages of a WebSocket, up to an empty one."""
    while message := await socket.receive_bytes():
        yield message
