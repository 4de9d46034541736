"""The reason phrases of HTTP statuses, which are the same in every process and under every Python.

The supervisor needs them too, and `wire/problem.py`, where they are used most, would load msgspec.
"""

from __future__ import annotations

import http

# RFC 9110 renamed these; Python knows the new names from 3.13 on, and ours must not depend on its
# version.
_RENAMED = {
    413: "Content Too Large",
    414: "URI Too Long",
    416: "Range Not Satisfiable",
    422: "Unprocessable Content",
}


def phrase(status: int) -> str:
    """Return the reason phrase of a status, such as `Not Found`."""
    try:
        return _RENAMED.get(status) or http.HTTPStatus(status).phrase
    except ValueError:
        return "Error"
