"""Addresses of services that run elsewhere, `depends(url=…)`: what is wrong with one, and how it is
shown without the user and password in it.
"""

from __future__ import annotations

from graphserve.declare.options import HIDDEN


def address(url: str) -> str:
    """Return a URL as people may read it: without its user and password."""
    scheme, _, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    return f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"


def hidden(url: str) -> str:
    """Return a URL as a description has it: `***` in the place of its user and password."""
    public = address(url)
    return url if public == url else public.replace("://", f"://{HIDDEN}@", 1)


def credentials(url: str) -> tuple[str, tuple[str, str] | None]:
    """Return a URL without its user and password, and these two.

    They are sent as a header, and so are in no log of URLs.
    """
    public = address(url)
    if public == url:
        return url, None
    from urllib.parse import unquote, urlsplit

    parts = urlsplit(url)
    return public, (unquote(parts.username or ""), unquote(parts.password or ""))


def without_credentials(url: str) -> str:
    """Return an address that is written wrongly, without all that may be its user and password."""
    scheme, mark, rest = url.partition("://") if "://" in url else ("", "", url)
    return f"{scheme}{mark}{rest.rpartition('@')[2]}"


def url_fault(url: str) -> str | None:
    """Return why nothing can be reached at this address, or None."""
    import ipaddress
    from urllib.parse import urlsplit

    if any(character <= " " or character == "\x7f" for character in url):
        return "an address has no blanks and no control characters"
    if "?" in url or "#" in url:
        return "an address has no query and no fragment; calls put theirs behind it"
    authority, _, path = url.partition("://")[2].partition("/")
    if ":" in authority and "@" not in authority and "@" in path:  # or is it user:password@host?
        return (
            "there is an @ behind the first /: write it as %40, and a / in a user or password"
            " as %2F"
        )
    try:
        parts = urlsplit(address(url))  # the words of an exception may quote what they are about
        host, port = parts.hostname, parts.port
        if ":" in (host or ""):
            ipaddress.IPv6Address(host)
        elif host is not None and host.replace(".", "").isdigit():
            ipaddress.IPv4Address(host)
        elif host is not None:
            host.encode("idna")
    except ValueError as exc:
        return f"no address: {exc}"
    if not host:
        return "an address names a host"
    return "port 0 is no port to call" if port == 0 else None
