"""Reads sizes in bytes, as people write them: of flags, files and declarations. Pure."""

from __future__ import annotations

import re

from graphserve.declare.options import is_int

_UNITS = {"": 1, "b": 1}
for _power, _letter in enumerate("kmgt", start=1):
    _UNITS |= {f"{_letter}b": 1000**_power, f"{_letter}ib": 1024**_power, _letter: 1024**_power}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)", re.ASCII)


def read_size(value: object) -> int:
    """Return a number of bytes: `100MB` (powers of 1000), `2GiB` or `2G` (powers of 1024), or a
    plain number.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, str):
        if not is_int(value):
            raise ValueError(value)
        return int(value)
    match = _SIZE.fullmatch(value.strip().lower())
    if match is None or match[2] not in _UNITS:
        raise ValueError(value)
    whole = match[1].isdigit()
    return int(match[1]) * _UNITS[match[2]] if whole else int(float(match[1]) * _UNITS[match[2]])
