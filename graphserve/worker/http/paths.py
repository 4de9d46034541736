"""The paths of requests: which spellings are one path. Pure; runs in workers."""

from __future__ import annotations

import re

# What a path may have unescaped (RFC 3986, 3.3), and so all that a route is made of. A slash that is escaped is none.
_SEGMENT = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,;=:@")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")


def plain(path: bytes) -> bytes:
    """A path without the escapes that it does not need: the spelling that routes are written in."""
    return _ESCAPE.sub(_unescaped, path) if b"%" in path else path


def _unescaped(escape: re.Match[bytes]) -> bytes:
    code = int(escape[1], 16)
    return bytes((code,)) if code in _SEGMENT else escape[0].upper()
