"""`Media`: which media type a result is sent as, and which ones a parameter takes. Knows no
process.
"""

from __future__ import annotations

import re
import sys

from graphserve.declare.sizes import read_size
from graphserve.errors import DeclarationError

_TOKEN = r"[!#$%&'+.^_`|~0-9A-Za-z-]+"
_RANGE = re.compile(rf"(?:\*/\*|{_TOKEN}/\*|{_TOKEN}/{_TOKEN})\Z")


class Media:
    """Says which media type a result is sent as, or which ones a parameter takes.

    Args:
        media_types: of a result one, as `"image/jpeg"`: a client gets it unless its `Accept` asks
            for another. Of a parameter those that a file may have, or ranges of them, as
            `"image/*"`: another one is refused with 415. Without any, a file may be whatever the
            type of the parameter reads.
        max_size: of a parameter: bytes that a file may have at most, or text as `"20MB"`; a larger
            one is refused with 413.
        options: of a result: how it is written, as `quality=90` of JPEG and WebP.

    Raises:
        DeclarationError: it is written wrongly.

    Example:
        >>> from typing import Annotated
        >>> from graphserve import Media
        >>> @service
        ... class Player:
        ...     @api
        ...     def cut(
        ...         self, audio: Annotated[bytes, Media("audio/*", max_size="20MB")]
        ...     ) -> Annotated[bytes, Media("audio/wav")]:
        ...         return audio[:44]
    """

    __slots__ = ("max_size", "media_types", "options")

    def __init__(
        self,
        *media_types: str,
        max_size: int | str | None = None,
        **options: int | float | bool | str,
    ) -> None:
        frame = sys._getframe(1)
        place = frame.f_code.co_filename, frame.f_lineno
        for media_type in media_types:
            if not isinstance(media_type, str) or not _RANGE.match(media_type):
                raise DeclarationError(
                    f"Media({media_type!r}): this is no media type; write one as 'image/png', or,"
                    " of a parameter, a range as 'image/*'",
                    *place,
                )
        if max_size is not None:
            try:
                max_size = read_size(max_size)
            except ValueError:
                max_size = 0
            if max_size < 1:
                raise DeclarationError(
                    "Media(max_size=…) is a number of bytes from 1, or text as '20MB' or '2GiB'",
                    *place,
                )
        self.media_types = tuple(media_type.lower() for media_type in media_types)
        self.max_size = max_size
        self.options = options

    def takes(self, media_type: str) -> bool:
        """Return whether a file of this media type is taken, which has no parameters and is in
        lower case.
        """
        if not self.media_types:
            return True
        kind = media_type.partition("/")[0]
        return any(each in (media_type, f"{kind}/*", "*/*") for each in self.media_types)

    def __repr__(self) -> str:
        said = [repr(media_type) for media_type in self.media_types]
        if self.max_size is not None:
            said.append(f"max_size={self.max_size}")
        said += [f"{name}={value!r}" for name, value in self.options.items()]
        return f"Media({', '.join(said)})"
