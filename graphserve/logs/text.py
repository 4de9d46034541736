"""Text of users and clients, as it may be shown: on a terminal, in a log, in a table.

Pure; used in every process.

Whoever can put a control character on a terminal can move its cursor, hide what stands there, or
begin a line of his own.
"""

from __future__ import annotations

_KEPT = "\t"
_LINE_ENDS = (0x2028, 0x2029)  # and U+0085, which is one of C1
# they show text in another order than it has
_DIRECTIONS = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
_SURROGATES = range(0xD800, 0xE000)  # UTF-8 has none
_ESCAPES = {
    code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
    for code in (*range(0x20), *range(0x7F, 0xA0), *_LINE_ENDS, *_DIRECTIONS, *_SURROGATES)
    if chr(code) not in _KEPT
} | {0x0A: "\\n", 0x0D: "\\r"}
_ESCAPES_IN_JSON = {code: f"\\u{code:04x}" for code in _ESCAPES}
_ESCAPES_IN_LINES = {code: escape for code, escape in _ESCAPES.items() if code != 0x0A}


def printable(text: str, *, lines: bool = False) -> str:
    """Return a text with escapes, as Python writes them,
    for control characters, line ends and surrogates.

    Args:
        text: whatever it is.
        lines: whether it may have several lines; its line ends then stay.
    """
    if text.isprintable():  # nearly always, and quick
        return text
    return text.translate(_ESCAPES_IN_LINES if lines else _ESCAPES)


def printable_json(text: str) -> str:
    """Return JSON that means the same, with JSON's own escapes for what `printable` escapes."""
    return text if text.isprintable() else text.translate(_ESCAPES_IN_JSON)


def encodable(value: object) -> object:
    """Return text, or lists and dicts of it, with escapes for what UTF-8 does not have:
    lone surrogates.
    """
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {encodable(name): encodable(item) for name, item in value.items()}
    return [encodable(item) for item in value] if isinstance(value, (list, tuple)) else value
