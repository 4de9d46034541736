"""Streams on the wire: the items of a streaming API as frames between nodes, NDJSON or Server-Sent Events outside.

A frame is five bytes, length (little-endian, 32 bit) and kind, then the payload: an item (msgpack), an error
(problem+json), or the end. A stream that stops without an end frame was cut.
"""

from __future__ import annotations

import enum
import struct
from functools import lru_cache

from graphserve.wire.formats import Format

_HEAD = struct.Struct("<IB")
ITEM, ERROR, END = 0, 1, 2


# What a caller asks for that has no annotations: the service holds the items to its own.
CHECKED_FRAMES = b"application/vnd.graphserve.stream;checked=1"


class StreamFormat(enum.Enum):
    """How a stream is written; the value is its Content-Type."""

    FRAMES = b"application/vnd.graphserve.stream"
    NDJSON = b"application/x-ndjson"
    EVENTS = b"text/event-stream"

    def item(self, payload: bytes) -> bytes:
        """An item: msgpack for frames, JSON else."""
        if self is StreamFormat.FRAMES:
            return pack(ITEM, payload)
        return payload + b"\n" if self is StreamFormat.NDJSON else b"data: " + payload + b"\n\n"

    def end(self) -> bytes:
        """What says that nothing is missing."""
        if self is StreamFormat.FRAMES:
            return pack(END)
        return b"event: end\ndata:\n\n" if self is StreamFormat.EVENTS else b""

    def error(self, payload: bytes) -> bytes:
        """The error that ended it: a frame's payload, or a problem. NDJSON has no place for one: there it is a line,
        and the missing end of the answer says that the stream was cut.
        """
        if self is StreamFormat.FRAMES:
            return pack(ERROR, payload)
        return payload + b"\n" if self is StreamFormat.NDJSON else b"event: error\ndata: " + payload + b"\n\n"


@lru_cache(maxsize=256)
def stream_format(accept: bytes | None) -> StreamFormat:
    """The format that an Accept asks for; NDJSON unless it names another."""
    named = (accept or b"").lower()
    if StreamFormat.FRAMES.value in named:
        return StreamFormat.FRAMES
    return StreamFormat.EVENTS if StreamFormat.EVENTS.value in named else StreamFormat.NDJSON


@lru_cache(maxsize=256)
def item_format(accept: bytes | None) -> Format:
    """How the items are written of a stream that an Accept asks for."""
    if stream_format(accept) is not StreamFormat.FRAMES:
        return Format.JSON
    return Format.CHECKED if CHECKED_FRAMES in (accept or b"").lower() else Format.TYPED


def pack(kind: int, payload: bytes = b"") -> bytes:
    """One frame."""
    return _HEAD.pack(len(payload), kind) + payload


class FrameReader:
    """Takes bytes as they come, and gives whole frames."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._wanted = _HEAD.size  # bytes of which the next frame, or its head, consists

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The frames that are whole now, each with its kind."""
        rest = self._rest
        rest += data
        frames: list[tuple[int, bytes]] = []
        if len(rest) < self._wanted:
            return frames
        at, size = 0, len(rest)
        self._wanted = _HEAD.size
        while size - at >= _HEAD.size:
            length, kind = _HEAD.unpack_from(rest, at)
            end = at + _HEAD.size + length
            if end > size:
                self._wanted = end - at
                break
            frames.append((kind, bytes(rest[at + _HEAD.size : end])))
            at = end
        del rest[:at]
        return frames
