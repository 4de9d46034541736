"""Names the formats of bodies and of streams, and finds the one that a Content-Type names or an
Accept asks for.

The items of a stream are frames between nodes, NDJSON or Server-Sent Events outside. A frame is
five bytes, length (little-endian, 32 bit) and kind, then the payload: an item (msgpack), an error
(problem+json), or the end. A stream that stops without an end frame was cut.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from graphserve.declare.routes import LAST_EVENT_ID
from graphserve.wire.headers import MOST_DIGITS

PROBLEM = b"application/problem+json"  # an error (RFC 9457)

BodyBytes = bytes | bytearray | memoryview

_HEAD = struct.Struct("<IB")
ITEM = 0
ERROR = 1
END = 2


class Format(enum.Enum):
    """Says how a body is written; the value is the Content-Type for it.

    A new one: `content_format` and `accept_format` have to find it. `codec` and `values` read and
    write it; `codec` takes what is neither JSON nor raw for msgpack. `checks/duplicates`,
    `costs/screening` and `costs/collisions` look at a body before it is read; `openapi` describes
    it, and `call/lanes/url` and `run/local_node` choose one.
    """

    JSON = b"application/json"
    MSGPACK = b"application/msgpack"  # what every msgpack library reads, but for arrays
    # for typed callers: models and large integers as extension types
    TYPED = b"application/vnd.graphserve+msgpack"
    # The same for a typed caller that has no annotations: the service holds the result to its own.
    CHECKED = b"application/vnd.graphserve+msgpack;checked=1"
    RAW = b"application/octet-stream"
    # A request whose arguments are in its URL too, whole, as it goes on inside a graph: see
    # `UrlArguments`.
    BY_URL = b"application/vnd.graphserve.by-url"

    __hash__ = object.__hash__  # (members are singletons; that of an enum is a function in Python)

    @property
    def content_type(self) -> bytes:
        """Return the Content-Type of a response in this format."""
        return Format.TYPED.value if self is Format.CHECKED else self.value


@dataclass(frozen=True, slots=True)
class MediaFormat:
    """Says that a result leaves by itself, with no JSON or msgpack around it.

    Args:
        content_type: its media type, with parameters.
        options: how it is written, by name.
        is_json: whether it is JSON that leaves under this name.
    """

    content_type: bytes
    options: tuple[tuple[str, object], ...] = ()
    is_json: bool = False

    @property
    def media_type(self) -> str:
        """Return its media type, without parameters."""
        return self.content_type.partition(b";")[0].decode("latin-1")


AnswerFormat = Format | MediaFormat

_JSON = Format.JSON.value.decode()
_TYPED = Format.TYPED.value.decode()
_BY_URL = Format.BY_URL.value.decode()
_MSGPACK = frozenset(
    {Format.MSGPACK.value.decode(), "application/x-msgpack", "application/vnd.msgpack"}
)
_UTF8 = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})

# Forms: what HTML has for them, with files or without.
MULTIPART = "multipart/form-data"
URLENCODED = "application/x-www-form-urlencoded"


@lru_cache(maxsize=256)
def content_format(content_type: bytes | None) -> Format | None:
    """Return the format that a Content-Type names; no Content-Type is JSON, as curl's users expect.

    Returns:
        None for JSON in a charset other than UTF-8, which nothing reads. Any other content type is
        RAW: only an API that takes a raw body accepts it.
    """
    if not content_type or not content_type.strip():
        return Format.JSON
    kind, parameters = _parse(content_type)
    if kind in _MSGPACK:
        return Format.MSGPACK
    if kind == _TYPED:
        return Format.TYPED
    if kind == _BY_URL:
        return Format.BY_URL
    if not is_json(kind):
        return Format.RAW
    return Format.JSON if is_utf8(parameters.get("charset", "utf-8")) else None


@lru_cache(maxsize=256)
def media_type(content_type: bytes) -> str:
    """Return the media type that a Content-Type names, without parameters, in lower case."""
    return _parse(content_type)[0]


def is_json(media_type: str) -> bool:
    """Return whether a media type, in lower case and without parameters, is one of JSON."""
    return media_type == _JSON or (
        media_type.startswith("application/") and media_type.endswith("+json")
    )


@lru_cache(maxsize=256)
def is_form(content_type: bytes | None) -> bool:
    """Return whether a Content-Type is one of a form: then the body is the form, and not the file
    that is in it.
    """
    kind, _ = _parse(content_type or b"")
    return kind.startswith("multipart/") or kind == URLENCODED


@lru_cache(maxsize=256)
def form_format(content_type: bytes | None) -> str:
    """Return the media type of a form that can be read, `MULTIPART` or `URLENCODED`; empty if a
    Content-Type is none of these, or says another charset than UTF-8.
    """
    kind, parameters = _parse(content_type or b"")
    if kind == URLENCODED and not is_utf8(parameters.get("charset", "utf-8")):
        return ""
    return kind if kind in (MULTIPART, URLENCODED) else ""


def is_utf8(charset: str) -> bool:
    """Return whether what is in a charset is UTF-8, as all of ASCII is."""
    return charset.lower() in _UTF8


@lru_cache(maxsize=256)
def is_multipart(content_type: bytes | None) -> bool:
    """Return whether a Content-Type is the one of a form that may have files in it."""
    return _parse(content_type or b"")[0] == MULTIPART


@lru_cache(maxsize=256)
def accept_format(accept: bytes | None) -> Format:
    """Return the format that an Accept prefers: msgpack if it ranks above JSON, else JSON."""
    if not accept:
        return Format.JSON
    if accept == Format.TYPED.value:
        return Format.TYPED
    ranges = [_parse(part) for part in accept.split(b",")]
    for kind, parameters in ranges:
        if kind == _TYPED:  # nobody names it who does not read it
            return Format.CHECKED if parameters.get("checked") == "1" else Format.TYPED
    json = _quality(ranges, (_JSON, "application/*", "*/*"))
    msgpack = max(_quality(ranges, (name, "application/*", "*/*")) for name in _MSGPACK)
    return Format.MSGPACK if msgpack > json else Format.JSON


def preferred(accept: bytes, offers: Sequence[bytes]) -> int:
    """Return which of several media types an Accept ranks highest.

    Of equal ones it is one that the Accept names, before one that it takes by `*/*` only: RFC 9110,
    12.5.1, leaves the choice to us, and `application/json, */*`, as libraries send it, is meant so.
    Of these it is the first.
    """
    ranges = [_parse(part) for part in accept.split(b",")]
    best = 0
    most = 0.0, False
    for index, offer in enumerate(offers):
        kind = offer.partition(b";")[0].decode("latin-1")
        names = kind, kind.partition("/")[0] + "/*"
        is_named = any(each in names for each, _ in ranges)
        found = _quality(ranges, (*names, "*/*")), is_named
        if found[0] > 0 and found > most:
            best = index
            most = found
    return best


def _quality(ranges: list[tuple[str, dict[str, str]]], names: tuple[str, ...]) -> float:
    # The most specific range that matches decides (RFC 9110, 12.5.1).
    for name in names:
        for kind, parameters in ranges:
            if kind == name:
                return _number(parameters.get("q", "1"))
    return 0.0


def _number(text: str) -> float:
    try:
        return min(1.0, max(0.0, float(text)))
    except ValueError:
        return 0.0


def _parse(header: bytes) -> tuple[str, dict[str, str]]:
    kind, *rest = header.decode("latin-1").split(";")
    parameters = {}
    for parameter in rest:
        name, _, value = parameter.partition("=")
        parameters[name.strip().lower()] = value.strip().strip('"')
    return kind.strip().lower(), parameters


class StreamFormat(enum.Enum):
    """Says how a stream is written; the value is its Content-Type."""

    FRAMES = b"application/vnd.graphserve.stream"
    NDJSON = b"application/x-ndjson"
    EVENTS = b"text/event-stream"

    @property
    def content_type(self) -> bytes:
        """Return the Content-Type of such a stream."""
        return self.value

    def item(self, payload: bytes, number: int = 0) -> bytes:
        """Write an item: msgpack for frames, JSON else.

        Args:
            payload: the item.
            number: of an event: its id, by which a client says what it had last.
        """
        if self is StreamFormat.FRAMES:
            return pack(ITEM, payload)
        if self is StreamFormat.NDJSON:
            return payload + b"\n"
        return b"id: %d\ndata: %b\n\n" % (number, payload)

    def end(self) -> bytes:
        """Write the end, which says that nothing is missing."""
        if self is StreamFormat.FRAMES:
            return pack(END)
        return b"event: end\ndata:\n\n" if self is StreamFormat.EVENTS else b""

    def error(self, payload: bytes) -> bytes:
        """Write the error that ended it: a frame's payload, or a problem.

        NDJSON has no place for one: there it is a line, and the missing end of the response says
        that the stream was cut.
        """
        if self is StreamFormat.FRAMES:
            return pack(ERROR, payload)
        return (
            payload + b"\n"
            if self is StreamFormat.NDJSON
            else b"event: error\ndata: " + payload + b"\n\n"
        )


def last_event(arguments: Mapping[str, object]) -> int:
    """Return the number of the event that a client of a stream had last, if its API was told; 0 if
    not.
    """
    last = arguments.get(LAST_EVENT_ID)
    if isinstance(last, str) and last.isascii() and last.isdecimal() and len(last) <= MOST_DIGITS:
        last = int(last)
    if isinstance(last, int) and 0 < last < 10**MOST_DIGITS:
        return last
    return 0


# A stream in a media type of its own has its pieces, one after the other, and nothing around them.
AnyStreamFormat = StreamFormat | MediaFormat

# What a caller asks for that has no annotations: the service holds the items to its own.
CHECKED_FRAMES = StreamFormat.FRAMES.value + b";checked=1"


@lru_cache(maxsize=256)
def stream_format(accept: bytes | None) -> StreamFormat:
    """Return the format of stream that an Accept asks for; NDJSON unless it names another."""
    named = (accept or b"").lower()
    if StreamFormat.FRAMES.value in named:
        return StreamFormat.FRAMES
    return StreamFormat.EVENTS if StreamFormat.EVENTS.value in named else StreamFormat.NDJSON


@lru_cache(maxsize=256)
def item_format(accept: bytes | None) -> Format:
    """Return how the items of a stream are written that an Accept asks for."""
    if stream_format(accept) is not StreamFormat.FRAMES:
        return Format.JSON
    return Format.CHECKED if CHECKED_FRAMES in (accept or b"").lower() else Format.TYPED


def pack(kind: int, payload: bytes = b"") -> bytes:
    """Return one frame."""
    return _HEAD.pack(len(payload), kind) + payload


class FrameReader:
    """Cuts a stream of bytes, as it comes, into whole frames."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._wanted = _HEAD.size  # bytes of which the next frame, or its head, consists

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Return the frames that are whole now, each with its kind."""
        rest = self._rest
        rest += data
        frames: list[tuple[int, bytes]] = []
        if len(rest) < self._wanted:
            return frames
        at = 0
        size = len(rest)
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
