"""Origins of pages, as `cors=[…]` and `--cors-origin` name them: `https://app.example.com`,
`https://*.example.com` for all names below one, `*` for every page.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

EVERY = "*"
_ORIGIN = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>(?:\*\.)?[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?"
    r"|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?\Z"
)
# that browsers leave out of an origin
USUAL_PORTS = {"http": "80", "https": "443"}

EXPECTED = (
    "origins as browsers write them, such as 'https://app.example.com' or 'http://localhost:3000':"
    " no path, no slash at the end; 'https://*.example.com' is all that is below a name, '*' alone"
    " is every page"
)


def normal(origin: str) -> str | None:
    """Return an origin as browsers write it: in lower case, without the port that its scheme has
    anyway; None if it is none.
    """
    found = _ORIGIN.match(origin.lower())
    if found is None:
        return None
    scheme, host, port = found["scheme"], found["host"], found["port"]
    is_usual = port is None or port == USUAL_PORTS.get(scheme)
    return f"{scheme}://{host}" + ("" if is_usual else f":{port}")


def are_origins(origins: Sequence[object]) -> bool:
    """Return whether these can be allowed: each is an origin, or the only one is `*`."""
    if EVERY in origins:
        return len(origins) == 1
    return all(isinstance(each, str) and normal(each) is not None for each in origins)
