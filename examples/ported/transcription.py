"""A long recording, cut where it is silent and transcribed side by side: from Truss Chains.

The recordings are those of a telephone whose keys are pressed.
"""

import asyncio
import io
import wave
from dataclasses import dataclass
from typing import Annotated

import models
import numpy as np

from graphserve import Array, Problem, api, depends, service

LONG = 30  # s; what one chunker gets
FRAME = 0.02  # s; silence is looked for in frames
LOUD = 0.01  # mean square from which a frame is no silence

Samples = Annotated[np.ndarray, Array(dtype="float32", shape=(None,))]


@dataclass
class Segment:
    start: float
    end: float
    text: str


@service(workers=2)
class Transcriber:
    @api(idempotent=True)
    def transcribe(self, sounds: list[Samples], rate: int) -> list[str]:
        return [models.key_of(samples, rate) for samples in sounds]


@service(workers=2)
class Chunker:
    transcriber = depends(Transcriber)

    @api(idempotent=True)
    async def transcribe(self, samples: Samples, rate: int, offset: float) -> list[Segment]:
        spans = sounds(samples, round(FRAME * rate))
        texts = await self.transcriber.transcribe(
            [samples[start:end] for start, end in spans], rate
        )
        return [
            Segment(round(offset + start / rate, 2), round(offset + end / rate, 2), text)
            for (start, end), text in zip(spans, texts, strict=True)
        ]


@service
class Gateway:
    chunker = depends(Chunker)

    @api
    async def transcribe(self, audio: bytes) -> list[Segment]:
        """Transcribe a WAV file of 16 bits and one channel."""
        samples, rate = await asyncio.to_thread(decoded, audio)
        calls = [
            self.chunker.transcribe(samples[start:end], rate, start / rate)
            for start, end in pieces(samples, LONG * rate, round(FRAME * rate))
        ]
        return [segment for part in await asyncio.gather(*calls) for segment in part]


def decoded(audio: bytes) -> tuple[np.ndarray, int]:
    """The samples of a WAV file, -1 to 1, and how many are a second."""
    try:
        with wave.open(io.BytesIO(audio)) as file:
            if (file.getsampwidth(), file.getnchannels()) != (2, 1):
                raise wave.Error("it has not 16 bits and one channel")
            if not 8000 <= file.getframerate() <= 48000:
                raise wave.Error("it has not 8,000 to 48,000 samples a second")
            data = np.frombuffer(file.readframes(file.getnframes()), "<i2")
            return data.astype(np.float32) / 32768, file.getframerate()
    except (wave.Error, EOFError, ValueError) as error:
        raise Problem(415, "Not A Recording", detail=f"not a WAV file to read: {error}") from None


def pieces(samples: np.ndarray, longest: int, frame: int) -> list[tuple[int, int]]:
    """Pieces of at most so many samples, cut where their second half is quietest."""
    found, start = [], 0
    while len(samples) - start > longest:
        cut = start + longest // 2
        cut += int(loudness(samples[cut : start + longest], frame).argmin()) * frame
        found.append((start, cut))
        start = cut
    return [*found, (start, len(samples))]


def sounds(samples: np.ndarray, frame: int) -> list[tuple[int, int]]:
    """Where something sounds: begin and end in samples."""
    loud = np.concatenate([[False], loudness(samples, frame) > LOUD, [False]])
    edges = np.flatnonzero(np.diff(loud)) * frame
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def loudness(samples: np.ndarray, frame: int) -> np.ndarray:
    """The mean square of each whole frame of a sound."""
    frames = samples[: len(samples) // frame * frame].reshape(-1, frame)
    return np.asarray((frames**2).mean(axis=1))
