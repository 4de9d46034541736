"""Says in which media types a result can leave by itself, and which one an Accept asks for.

Runs in workers. What is decided for a result is made once, when the worker starts.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from graphserve.declare.media import Media
from graphserve.wire.formats import (
    AnswerFormat,
    Format,
    MediaFormat,
    accept_format,
    preferred,
)
from graphserve.wire.media.files import kind_sent
from graphserve.wire.media.kinds import TEXT
from graphserve.wire.type_hints import Hint

Accepts = Callable[["bytes | None"], AnswerFormat]


def accepts_of(hint: Hint, media: Media | None = None) -> Accepts:
    """Return what finds the format that an Accept asks for, of a result of this type.

    Args:
        hint: the type; None or of a stream's item where nothing leaves by itself.
        media: what the result is sent as, if its annotation says so.
    """
    kind = kind_sent(hint, media)
    offers: list[MediaFormat] = []
    if media is not None:
        said = media.media_types[0]
        charset = "; charset=utf-8" if kind is TEXT and said.startswith("text/") else ""
        options = tuple(media.options.items())
        offers.append(MediaFormat((said + charset).encode(), options, kind is None))
    elif kind is None:
        return accept_format
    known = {offer.media_type for offer in offers}
    if kind is not None:
        offers += [MediaFormat(each.encode()) for each in kind.offers if each not in known]
    json_first = media is None and kind is not None and kind.json_first
    return _accepts(tuple(offers), json_first)


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
