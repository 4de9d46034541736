"""Says in which media types a result can leave by itself, and which one an Accept asks for.

Runs in workers. What is decided for a result is made once, when the worker starts.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from graphserve.wire import type_hints
from graphserve.wire.formats import (
    AnswerFormat,
    Format,
    MediaFormat,
    accept_format,
    preferred,
)
from graphserve.wire.media import images
from graphserve.wire.type_hints import Hint

Accepts = Callable[["bytes | None"], AnswerFormat]
_RAW = MediaFormat(Format.RAW.value)
_IMAGES = [MediaFormat(media_type) for media_type in images.MEDIA_TYPES]


def accepts_of(hint: Hint) -> Accepts:
    """Return what finds the format that an Accept asks for, of a result of this type.

    Args:
        hint: the type; None or of a stream's item where nothing leaves by itself.
    """
    if hint is bytes:
        return _bytes_format
    return _image_format if images.is_image(type_hints.unwrap(hint)[0]) else accept_format


@lru_cache(maxsize=256)
def _image_format(accept: bytes | None) -> AnswerFormat:
    found = accept_format(accept)
    if not accept:
        return _IMAGES[0]
    if found in (Format.TYPED, Format.CHECKED):
        return found
    offers = [*(offer.content_type for offer in _IMAGES), found.value]
    return [*_IMAGES, found][preferred(accept, offers)]


@lru_cache(maxsize=256)
def _bytes_format(accept: bytes | None) -> AnswerFormat:
    found = accept_format(accept)
    if not accept or found in (Format.TYPED, Format.CHECKED):
        return found
    return _RAW if preferred(accept, [found.value, _RAW.content_type]) else found
