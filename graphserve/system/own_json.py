"""JSON as our own processes write and read it, whatever user code does to the module `json`.

Any process.

Code that replaces `json.dumps`, or what `JSONEncoder` does, is not rare; the Plan and the messages
between processes must not change with it. What is needed is taken here, before user code runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any


class _Encoder(json.JSONEncoder):
    # Found in this class, and not in the one that user code may change.
    __init__ = json.JSONEncoder.__init__
    encode = json.JSONEncoder.encode
    iterencode = json.JSONEncoder.iterencode
    default = json.JSONEncoder.default


class _Decoder(json.JSONDecoder):
    __init__ = json.JSONDecoder.__init__
    decode = json.JSONDecoder.decode
    raw_decode = json.JSONDecoder.raw_decode


_plain = _Encoder()
_decoder = _Decoder()


def dumps(
    value: object,
    *,
    default: Callable[[object], object] | None = None,
    indent: int | None = None,
    sort_keys: bool = False,
    ensure_ascii: bool = True,
    separators: tuple[str, str] | None = None,
    allow_nan: bool = True,
) -> str:
    """Return a value as JSON; the arguments are those of `json.dumps`."""
    if (
        default is None
        and indent is None
        and separators is None
        and not sort_keys
        and ensure_ascii
        and allow_nan
    ):
        return str(_plain.encode(value))
    encoder = _Encoder(
        default=default,
        indent=indent,
        sort_keys=sort_keys,
        ensure_ascii=ensure_ascii,
        separators=separators,
        allow_nan=allow_nan,
    )
    return str(encoder.encode(value))


def loads(text: str | bytes | bytearray) -> Any:
    """Return the value of a JSON text; bytes are UTF-8.

    Raises:
        ValueError: the text is not JSON.
    """
    return _decoder.decode(text if isinstance(text, str) else text.decode("utf-8"))
