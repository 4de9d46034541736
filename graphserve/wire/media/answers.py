"""Says in which media types a result can leave by itself, and which one an Accept asks for.

Runs in workers. What is decided for a result is made once, when the worker starts.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from graphserve.declare.media import Media
from graphserve.wire.formats import (
    AnswerFormat,
    AnyStreamFormat,
    Format,
    MediaFormat,
    StreamFormat,
    accept_format,
    preferred,
    stream_format,
)
from graphserve.wire.media.files import kind_sent, kind_streamed
from graphserve.wire.media.kinds import MediaKind
from graphserve.wire.media.octets import TEXT
from graphserve.wire.type_hints import Hint

Accepts = Callable[["bytes | None"], AnswerFormat]
Streams = Callable[["bytes | None"], AnyStreamFormat]


def accepts_of(hint: Hint, media: Media | None = None) -> Accepts:
    """Return what finds the format that an Accept asks for, of a result of this type.

    Args:
        hint: the type; None or of a stream's item where nothing leaves by itself.
        media: what the result is sent as, if its annotation says so.
    """
    kind = kind_sent(hint, media)
    offers: list[MediaFormat] = []
    if media is not None:
        options = tuple(media.options.items())
        offers.append(MediaFormat(named(kind, media.media_types[0]), options, kind is None))
    elif kind is None:
        return accept_format
    known = {offer.media_type for offer in offers}
    if kind is not None:
        offers += [MediaFormat(each.encode()) for each in kind.offers if each not in known]
    json_first = media is None and kind is not None and kind.json_first
    return _accepts(tuple(offers), json_first)


def streams_of(item: Hint, media: Media | None = None) -> Streams:
    """Return what finds the format that an Accept asks for, of a stream of such items.

    Args:
        item: the type of the items.
        media: what the stream is sent as, if its annotation says so.
    """
    kind = kind_streamed(item, media)
    if kind is None:
        return stream_format
    said = [*(media.media_types if media is not None else ()), *kind.offers]
    raw = [MediaFormat(named(kind, each)) for each in dict.fromkeys(said)]
    others = {
        StreamFormat.NDJSON.value: StreamFormat.NDJSON,
        Format.JSON.value: StreamFormat.NDJSON,
        StreamFormat.EVENTS.value: StreamFormat.EVENTS,
    }
    ranked: list[AnyStreamFormat] = [*raw, *others.values()]
    names = [*(each.content_type for each in raw), *others]

    @lru_cache(maxsize=256)
    def streams(accept: bytes | None) -> AnyStreamFormat:
        found = stream_format(accept)
        if found is StreamFormat.FRAMES or not accept:
            return found if accept else ranked[0]
        return ranked[preferred(accept, names)]

    return streams


def named(kind: MediaKind | None, media_type: str) -> bytes:
    """Return the Content-Type of what is sent as a media type."""
    charset = "; charset=utf-8" if kind is TEXT and media_type.startswith("text/") else ""
    return (media_type + charset).encode()


def _accepts(offers: tuple[MediaFormat, ...], json_first: bool) -> Accepts:
    @lru_cache(maxsize=256)
    def accepts(accept: bytes | None) -> AnswerFormat:
        found = accept_format(accept)
        if found in (Format.TYPED, Format.CHECKED):
            return found
        ranked = (found, *offers) if json_first else (*offers, found)
        if not accept:
            return ranked[0]
        return ranked[preferred(accept, [each.content_type for each in ranked])]

    return accepts
