"""`Forwarded` says of the client of a trusted proxy what X-Forwarded-* say, and of no other's."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from graphserve.worker.http.forwarded import TrustedProxies

PROXY = ("127.0.0.1", 1)


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """Answer nothing."""


def proxies(trusted: str = "127.0.0.1") -> TrustedProxies:
    return TrustedProxies(nothing, trusted)


def of(*values: str) -> list[tuple[bytes, bytes]]:
    return [(b"forwarded", value.encode("latin-1")) for value in values]


@pytest.mark.parametrize(
    ("values", "client", "scheme"),
    [
        (["for=192.0.2.7"], "192.0.2.7", "http"),
        (["For=192.0.2.7;Proto=HTTPS;by=203.0.113.43"], "192.0.2.7", "https"),
        (['for="192.0.2.7:4711"'], "192.0.2.7", "http"),
        (['for="[2001:db8::7]:4711" ; proto=https'], "2001:db8::7", "https"),
        (['for="[2001:db8::7]"'], "2001:db8::7", "http"),
        (["for=192.0.2.1;proto=https, for=192.0.2.7;proto=http"], "192.0.2.7", "http"),
        (["for=192.0.2.1", "for=192.0.2.7;proto=https"], "192.0.2.7", "https"),
        (["for=192.0.2.7, for=127.0.0.1;proto=https"], "192.0.2.7", "https"),
        (["for=unknown"], "unknown", "http"),
        (["proto=https"], "unknown", "https"),
        (["proto=gopher;for=192.0.2.7"], "192.0.2.7", "http"),
        (["for=192.0.2.7;x"], "127.0.0.1", "http"),
        (['for="192.0.2.7'], "127.0.0.1", "http"),
        (['for="192.0.2.7, 192.0.2.8"'], "127.0.0.1", "http"),
        ([""], "127.0.0.1", "http"),
        (["for=192.0.2.7,"], "192.0.2.7", "http"),
        (['for="' + "\\" * 9999], "127.0.0.1", "http"),
    ],
)
def test_it_says_who_the_client_is(values: list[str], client: str, scheme: str) -> None:
    found = proxies().client(PROXY, of(*values))
    assert found is not None and found[0] == client
    assert proxies().scheme(PROXY, of(*values), "http") == scheme


def test_it_says_at_which_host_the_client_came() -> None:
    headers = of("for=192.0.2.7;proto=https;host=a.test")
    assert proxies().origins(PROXY, headers, "http", [b"b"]) == [("https", b"a.test")]


def test_nobody_else_is_believed() -> None:
    headers = of("for=192.0.2.7;proto=https;host=a.test")
    other = proxies("192.0.2.1")
    assert other.client(PROXY, headers) == PROXY
    assert other.origins(PROXY, headers, "http", [b"b"]) == [("http", b"b")]


@pytest.mark.parametrize("name", [b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"])
def test_what_the_proxy_writes_itself_wins(name: bytes) -> None:
    headers = [*of("for=192.0.2.66;proto=https;host=evil.test"), (name, b"http")]
    found = proxies().client(PROXY, headers)
    assert found is not None and found[0] != "192.0.2.66"
    assert proxies().scheme(PROXY, headers, "http") == "http"
    assert proxies().origins(PROXY, headers, "http", [b"b"])[0][1] != b"evil.test"


@pytest.mark.parametrize("trusted", ["127.0.0.1", "192.0.2.1"])
def test_an_application_is_told_the_client(trusted: str) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope["client"], scope["scheme"], scope["headers"]))

    headers = of("for=192.0.2.7;proto=https")
    scope = {"type": "http", "client": PROXY, "scheme": "http", "headers": headers}
    asyncio.run(TrustedProxies(app, trusted)(scope, nothing, nothing))  # type: ignore[arg-type]
    believed = trusted == PROXY[0]
    expected = (("192.0.2.7", 0), "https") if believed else (PROXY, "http")
    assert seen == [(*expected, headers)]
