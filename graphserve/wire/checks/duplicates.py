"""Finds arguments that a body gives twice. They are refused: of two, one reader takes the first and
another the last.

Nested objects are not searched: there the last one counts, as in most readers; to find out costs a
second reading of everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from graphserve.wire.formats import BodyBytes, Format

_COUNTED = {0xDE: 2, 0xDF: 4}  # by the first byte of a map of msgpack, the bytes of its length


class Names:
    """Finds which of an API's parameters a body gives more than once.

    Args:
        names: those of the parameters.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._quoted = [(name, msgspec.json.encode(name)) for name in names]
        self._texts = [quoted for _, quoted in self._quoted]

    def are_once(self, text: bytes, given: int) -> bool:
        """Return whether JSON plainly has none of them twice;
        where it does not, `duplicate` finds out.
        """
        if text.count(b'"') == 2 * given:  # there are quotes around the names, and no others
            return True
        for quoted in self._texts:
            if text.count(quoted) > 1:
                return False
        return b"\\" not in text  # (a name may be written with escapes)

    def duplicate(
        self,
        body: BodyBytes,
        format: Format,
        given: int,
        members: Callable[[BodyBytes], dict[str, msgspec.Raw]],
    ) -> str | None:
        """Return which of them a body gives more than once, or None;
        an empty name if it is not known which.

        Args:
            body: an object of these names and no others, well-formed.
            format: how it is written.
            given: how many different ones it has.
            members: reads JSON to its members, each as it is written.
        """
        if format is not Format.JSON:
            return None if _entries(body) == given else ""
        text = body if type(body) is bytes else bytes(body)
        if self.are_once(text, given):
            return None
        often = [(name, quoted) for name, quoted in self._quoted if text.count(quoted) > 1]
        # The last of equal ones is what was kept. Outside of what was kept, each name has two
        # quotes, and nothing else has any; one that was not kept has two more.
        kept = members(text)
        if text.count(b'"') - sum(bytes(value).count(b'"') for value in kept.values()) == 2 * len(
            kept
        ):
            return None
        found = [
            name for name, quoted in often
            if text.count(quoted) - sum(bytes(value).count(quoted) for value in kept.values()) > 1
        ]  # fmt: skip
        return (
            found[0] if len(found) == 1 and b"\\u" not in text else ""
        )  # (the value that was not kept may hold names)


def _entries(body: BodyBytes) -> int:
    first = body[0]
    if 0x80 <= first <= 0x8F:
        return int(first & 0x0F)
    return int.from_bytes(body[1 : 1 + _COUNTED[first]], "big")
