"""Reads arguments that are text: in the query of a URL beside a raw body, in the parts of a form.

What can only be text stays as it is. All else is JSON if it reads as JSON (`1`, `true`, `[1, 2]`),
and text if it does not. The values are checked afterwards, as those of any body.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from graphserve.wire import type_hints
from graphserve.wire.media.files import is_any_length, without_none


class TextReader:
    """Knows how the arguments of one API are read from text.

    Args:
        types: the types of its parameters, by their names.
        texts: those whose values are text, whatever they look like.
    """

    def __init__(self, types: Mapping[str, object], texts: Iterable[str]) -> None:
        self._texts = set(texts)
        self._lists = set()
        for name, hint in types.items():
            part = type_hints.take_apart(without_none(hint))
            if is_any_length(part):
                self._lists.add(name)
                if without_none(part.items[0].hint) is str:
                    self._texts.add(name)

    def takes_many(self, name: str) -> bool:
        """Return whether a parameter is a list, so that its name may come more than once."""
        return name in self._lists

    def read(self, name: str, values: list[str]) -> object:
        """Return what the texts for one parameter say; several only for one that is a list."""
        if name not in self._lists:
            return _text(values[0]) if name in self._texts else natural(values[0])
        if len(values) == 1 and isinstance(found := natural(values[0]), list):
            return found
        return [_text(value) if name in self._texts else natural(value) for value in values]


def natural(text: str) -> object:
    """Return what a text says if it is JSON, else the text itself."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
        return text


def _text(value: str) -> str:
    """Return a text as it is, `5` too, unless it is written as JSON has text."""
    found = natural(value)
    return found if isinstance(found, str) else value
