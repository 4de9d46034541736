"""The hosts that requests name: one spelling of each, and which are this machine's own. Any process
of ours.
"""

from __future__ import annotations

import re
from ipaddress import ip_address

# names that no name server can point elsewhere (RFC 6761, 6.3)
LOOPBACK = ("localhost", "*.localhost")
_PARTS = re.compile(r"(?P<host>\[[^\]]*\]|[^:]*)(?::(?P<port>[0-9]*))?\Z")


def split(host: str) -> tuple[str, str]:
    """Return the name or address of a host, and its port; empty if it has none."""
    found = _PARTS.match(host)
    return (host, "") if found is None else (found["host"], found["port"] or "")


def plain(name: str) -> str:
    """Return a name or an address in one spelling."""
    name = name.lower().removesuffix(".")
    if ":" not in name:
        return name
    try:
        return str(ip_address(name.removeprefix("[").removesuffix("]")))
    except ValueError:
        return name


def is_loopback(host: str) -> bool:
    """Return whether a host is one of this machine's own names for itself."""
    name = plain(host)
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ip_address(name)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return address.is_loopback or (mapped is not None and mapped.is_loopback)
