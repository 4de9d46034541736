"""What a browser may be made to do by a page that it shows: which hosts the port answers to, and
whose pages may call.

A browser inside the firewall sends whatever a page of any site has it send. It says where the page
comes from (`Sec-Fetch-Site`, `Origin`), and which name it believes to have reached (`Host`). Other
clients say none of this, or what they like, and lose nothing by it: this protects the person at the
browser. Pure; runs in entry workers and
fallback servers.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from graphserve.declare.origins import USUAL_PORTS
from graphserve.graph.plan import ListenPlan
from graphserve.wire import hosts
from graphserve.wire.headers import ORIGIN, SEC_FETCH_SITE, Headers
from graphserve.wire.problem import HttpProblem
from graphserve.worker.http.limits import shown
from graphserve.worker.http.strict import host_is_valid

# Of a page of this very origin, or of nobody's: an address that was typed, a bookmark.
OWN_SITES = frozenset({b"same-origin", b"none"})
# Methods by which pages and health are read; no API is executed by them. OPTIONS is what a browser
# asks before a request that needs leave; it gets none here: where `cors` gives it, `Cors` has
# answered before.
SAFE = frozenset({b"GET", b"HEAD", b"OPTIONS"})
_ORIGIN = re.compile(rb"(?P<scheme>https?)://(?P<host>[^/?#@\s]+)\Z", re.IGNORECASE)


class AllowedHosts:
    """Decides by its host whether the public port answers to a request.

    Args:
        patterns: names, addresses, `*.name` for what is below a name, `*` for all.
        loopback: whether all names and addresses of loopback are of them.
    """

    def __init__(self, patterns: tuple[str, ...], *, loopback: bool = False) -> None:
        self._any = "*" in patterns
        self._loopback = loopback
        self._names = frozenset(
            hosts.plain(pattern) for pattern in patterns if not pattern.startswith("*")
        )
        self._below = tuple(pattern[1:].lower() for pattern in patterns if pattern.startswith("*."))
        # What most clients send is a few hosts; how many there are is not for a client to say.
        self.allows: Callable[[bytes | None], bool] = lru_cache(maxsize=256)(self._allows)

    @classmethod
    def of(cls, listen: ListenPlan) -> AllowedHosts:
        """Return the ones that were chosen, or else: on loopback its own names, elsewhere all.

        A page of any site can have its own name lead to 127.0.0.1 (DNS rebinding); then the browser
        takes both for one site. At another address the names that lead here are not known to us. A
        Unix socket is reached by no browser.
        """
        if listen.allowed_hosts:
            return cls(listen.allowed_hosts)
        if listen.uds is None and hosts.is_loopback(listen.host):
            return cls((listen.host, *hosts.LOOPBACK), loopback=True)
        return cls(("*",))

    def _allows(self, host: bytes | None) -> bool:
        """Return whether it is a host, with a port or without, and one of these."""
        if host is None or not host_is_valid(host):
            return False
        name = hosts.plain(hosts.split(host.decode("latin-1"))[0])
        if self._any or not name or name in self._names or name.endswith(self._below):
            # (without a name there is nothing that could be foreign; no browser sends that)
            return True
        return self._loopback and hosts.is_loopback(name)


def foreign_host(host: bytes) -> HttpProblem:
    """Return the refusal of a Host that is not allowed."""
    said = (
        f"this port does not answer to the host {shown(host)!r}: --allowed-hosts says which it"
        " answers to"
    )
    return HttpProblem(421, said)


def fault(
    method: bytes,
    executes: bool,
    headers: Headers,
    own: Callable[[], list[tuple[str, bytes]]],
    allows: Callable[[bytes], bool] | None = None,
) -> HttpProblem | None:
    """Return why a request is refused that a browser sends for a page of another site; None if it
    is none.

    Args:
        method: the method.
        executes: whether the target is an API; the rest only shows something.
        headers: names in lower case.
        own: gives the schemes and hosts that this port is reached at, as far as this request says.
        allows: returns whether pages of an origin may call, if those of some other ones may.
    """
    if method in SAFE and (not executes or method == b"OPTIONS"):
        return None
    origins = [value for name, value in headers if name == ORIGIN]
    if allows is not None and len(origins) == 1 and allows(origins[0]):
        return None
    sites = [value.strip().lower() for name, value in headers if name == SEC_FETCH_SITE]
    if sites:  # the browser has compared what it knows, and a page cannot set this header
        if OWN_SITES.issuperset(sites):
            return None
        return _foreign_page("Sec-Fetch-Site", sites[-1])
    if origins and not {origin(value) for value in origins} <= {
        _normal(scheme, host) for scheme, host in own()
    }:
        return _foreign_page("Origin", origins[-1])
    return None


def origin(value: bytes) -> str | None:
    """Return an origin in one spelling; None if no page of ours has it (`null` is that of a sandbox
    or a file).
    """
    found = _ORIGIN.match(value.strip())
    if found is None or not host_is_valid(found["host"]):
        return None
    return _normal(found["scheme"].decode().lower(), found["host"])


def _normal(scheme: str, host: bytes) -> str:
    name, port = hosts.split(host.decode("latin-1"))
    return f"{scheme}://{hosts.plain(name)}:{port or USUAL_PORTS.get(scheme, '')}"


def _foreign_page(header: str, value: bytes) -> HttpProblem:
    return HttpProblem(
        403,
        f"a browser sends this for a page of another site ({header}: {shown(value)}), which may"
        " call no API: --cors-origin says whose pages may",
    )
