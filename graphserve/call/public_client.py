"""An httpx client of a graph that this process started, at its public address. Runs in programs that call `serve()`."""

from __future__ import annotations

import ssl

import httpx

from graphserve.graph.plan import TlsPlan

_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=32)


def connect(url: str, tls: TlsPlan | None, password: str | None) -> httpx.AsyncClient:
    """A client; no proxy of the environment stands between a program and its own graph.

    Args:
        url: what the supervisor says it serves on; it may be `unix:/path`.
        tls: what the graph serves TLS with.
        password: of the TLS key.
    """
    verify = True if tls is None else _trust(tls, password)
    if not url.startswith("unix:"):
        return httpx.AsyncClient(verify=verify, timeout=None, trust_env=False, limits=_LIMITS)
    transport = httpx.AsyncHTTPTransport(uds=url.removeprefix("unix:"), verify=verify, limits=_LIMITS)
    return httpx.AsyncClient(transport=transport, timeout=None, trust_env=False)


def _trust(tls: TlsPlan, password: str | None) -> ssl.SSLContext:
    # The graph is ours: its own certificate is what it has to show, whoever issued it and whatever host it names.
    trust = ssl.create_default_context(cafile=tls.certfile)
    trust.check_hostname = False
    trust.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    trust.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if tls.cert_reqs != ssl.CERT_NONE:  # it asks for a certificate: we have the one that it shows itself
        trust.load_cert_chain(tls.certfile, tls.keyfile, password)
    return trust
