"""Says in which media types a result can leave by itself, and which one an Accept asks for.

Runs in workers. What is decided for a result is made once, when the worker starts.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from graphserve.wire.formats import (
    AnswerFormat,
    Format,
    MediaFormat,
    accept_format,
    preferred,
)
from graphserve.wire.type_hints import Hint

Accepts = Callable[["bytes | None"], AnswerFormat]
_RAW = MediaFormat(Format.RAW.value)


def accepts_of(hint: Hint) -> Accepts:
    """Return what finds the format that an Accept asks for, of a result of this type.

    Args:
        hint: the type; None or of a stream's item where nothing leaves by itself.
    """
    return _bytes_format if hint is bytes else accept_format


@lru_cache(maxsize=256)
def _bytes_format(accept: bytes | None) -> AnswerFormat:
    found = accept_format(accept)
    if not accept or found in (Format.TYPED, Format.CHECKED):
        return found
    return _RAW if preferred(accept, [found.value, _RAW.content_type]) else found
