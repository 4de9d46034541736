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
from graphserve.wire.media.files import kind_of
from graphserve.wire.media.kinds import MediaKind
from graphserve.wire.type_hints import Hint

Accepts = Callable[["bytes | None"], AnswerFormat]


def accepts_of(hint: Hint) -> Accepts:
    """Return what finds the format that an Accept asks for, of a result of this type.

    Args:
        hint: the type; None or of a stream's item where nothing leaves by itself.
    """
    # (where None may come, that is JSON)
    kind = None if type_hints.take_apart(hint).kind == "union" else kind_of(hint)
    return accept_format if kind is None else _accepts(kind)


def _accepts(kind: MediaKind) -> Accepts:
    offers = [MediaFormat(media_type.encode()) for media_type in kind.offers]

    @lru_cache(maxsize=256)
    def accepts(accept: bytes | None) -> AnswerFormat:
        found = accept_format(accept)
        if found in (Format.TYPED, Format.CHECKED):
            return found
        ranked = [found, *offers] if kind.json_first else [*offers, found]
        return (
            ranked[preferred(accept, [each.content_type for each in ranked])]
            if accept
            else ranked[0]
        )

    return accepts
