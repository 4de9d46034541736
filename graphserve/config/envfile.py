"""The env file: `KEY=VALUE` lines into a dict.

Small and strict; runs where the configuration is loaded.
"""

from __future__ import annotations

import re

from graphserve.errors import ConfigurationError

_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)", re.ASCII)
_SINGLE = re.compile(r"'([^']*)'\s*(?:#.*)?")
_DOUBLE = re.compile(r'"((?:[^"\\]|\\.)*)"\s*(?:#.*)?')
_ESCAPE = re.compile(r"\\(.)")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "$": "$"}


def read_env(text: str, name: str) -> dict[str, str]:
    """Read the text of an env file.

    A line is `KEY=VALUE`, with `export` before it if you like; blank lines and lines that start
    with `#` are skipped. A value may stand in single quotes (taken as it is) or in double quotes
    (with the escapes `\\n \\r \\t \\\\ \\" \\$`). After an unquoted value, ` #` starts a comment.
    Nothing is expanded.

    Args:
        text: what the file holds.
        name: the file's name, for messages.

    Raises:
        ConfigurationError: a line is written wrongly; the message starts with `file:line`.
    """
    found: dict[str, str] = {}
    for number, raw in enumerate(text.removeprefix("\ufeff").splitlines(), start=1):
        line = raw.strip()
        if line and not line.startswith("#"):
            key, value = _read_line(line, f"{name}:{number}")
            found[key] = value
    return found


def _read_line(line: str, where: str) -> tuple[str, str]:
    match = _LINE.fullmatch(line)
    if match is None:
        raise ConfigurationError(
            f"{where}: this line is not KEY=VALUE (its text may be secret, and is not shown)"
        )
    if "\0" in line:
        raise ConfigurationError(f"{where}: a value cannot hold a NUL character")
    return match[1], _read_value(match[2], where)


def _read_value(text: str, where: str) -> str:
    if text[:1] == "'":
        if match := _SINGLE.fullmatch(text):
            return match[1]
    elif text[:1] == '"':
        if match := _DOUBLE.fullmatch(text):
            return _ESCAPE.sub(lambda found: _unescape(found[1], where), match[1])
    else:
        return "" if text.startswith("#") else re.split(r"\s#", text, maxsplit=1)[0].rstrip()
    raise ConfigurationError(
        f"{where}: the quote {text[0]} does not end on this line, or text follows it"
    )


def _unescape(letter: str, where: str) -> str:
    if letter not in _ESCAPES:
        raise ConfigurationError(
            f"{where}: unknown escape \\{letter}; use single quotes to keep a backslash"
        )
    return _ESCAPES[letter]
