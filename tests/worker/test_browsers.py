"""Pages of other sites: which hosts the port answers to, who may call, and what a real browser then
does.
"""

from __future__ import annotations

import socket
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import trustme
from chromium import CHROMIUM, Browser, page_elsewhere

from graphserve.graph.plan import ListenPlan
from graphserve.wire.hosts import is_loopback
from graphserve.worker.http.browsers import AllowedHosts, fault
from tests.harness import Served, eventually, served
from tests.hostile.wire import Answer, address, answers, read_to_end

# --- hosts ---


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [
        ("localhost", True), ("LOCALHOST", True), ("localhost.", True), ("localhost:8000", True), ("a.localhost", True),
        ("a.b.localhost:1", True), ("127.0.0.1", True), ("127.0.0.1:80", True), ("127.9.8.7", True), ("[::1]", True),
        ("[::1]:8000", True), ("[0:0:0:0:0:0:0:1]", True), ("[::ffff:127.0.0.1]", True), ("", True),
        ("evil.test", False), ("localhost.evil.test", False), ("evil-localhost", False), ("notlocalhost", False),
        ("127.0.0.1.evil.test", False), ("10.0.0.1", False), ("0.0.0.0", False), ("[::2]", False), ("127.1", False),
        ("2130706433", False), (".localhost.evil", False), ("localhost@evil.test", False), ("a b", False),
    ],
)  # fmt: skip
def test_on_loopback_its_own_names_are_answered(host: str, is_ours: bool) -> None:
    hosts = AllowedHosts.of(ListenPlan())
    assert hosts.allows(host.encode()) is is_ours
    assert AllowedHosts.of(ListenPlan(host="::1")).allows(host.encode()) is is_ours
    assert AllowedHosts.of(ListenPlan(host="localhost")).allows(host.encode()) is is_ours


def test_elsewhere_and_on_a_unix_socket_all_are() -> None:
    for listen in (
        ListenPlan(host="0.0.0.0"),
        ListenPlan(host="192.0.2.7"),
        ListenPlan(uds="/x"),
        ListenPlan(host="::"),
    ):
        assert AllowedHosts.of(listen).allows(b"anything.test:80")
        assert not AllowedHosts.of(listen).allows(b"a b"), "but what is no host is none"
        assert not AllowedHosts.of(listen).allows(None)


def test_those_that_were_chosen_are_the_only_ones() -> None:
    chosen = ("Example.com", "*.example.org", "[2001:db8::1]", "192.0.2.7")
    for listen in (
        ListenPlan(allowed_hosts=chosen),
        ListenPlan(host="0.0.0.0", allowed_hosts=chosen),
    ):
        hosts = AllowedHosts.of(listen)
        for host in ("example.com", "EXAMPLE.COM:443", "example.com.", "a.example.org", "a.b.example.org:1",
                     "[2001:DB8:0::1]:80", "192.0.2.7:8000"):  # fmt: skip
            assert hosts.allows(host.encode()), host
        for host in (
            "example.org",
            "a.example.com",
            "localhost",
            "127.0.0.1",
            "xexample.org",
            "[2001:db8::2]",
        ):
            assert not hosts.allows(host.encode()), host
    assert AllowedHosts.of(ListenPlan(allowed_hosts=("*",))).allows(b"evil.test")


def test_what_loopback_is() -> None:
    assert all(
        map(is_loopback, ("localhost", "127.0.0.1", "::1", "[::1]", "x.localhost", "127.255.0.1"))
    )
    assert not any(map(is_loopback, ("0.0.0.0", "::", "example.com", "10.0.0.1", "")))


# --- sites ---

OWN = [("http", b"localhost:8000")]


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ({}, False),
        ({"sec-fetch-site": "same-origin"}, False), ({"sec-fetch-site": "none"}, False),
        ({"sec-fetch-site": "Same-Origin "}, False), ({"sec-fetch-site": "same-site"}, True),
        ({"sec-fetch-site": "cross-site"}, True), ({"sec-fetch-site": ""}, True), ({"sec-fetch-site": "x"}, True),
        ({"sec-fetch-site": "cross-site", "origin": "http://localhost:8000"}, True),
        ({"sec-fetch-site": "same-origin", "origin": "https://proxy.test"}, False),
        ({"origin": "http://localhost:8000"}, False), ({"origin": "HTTP://LOCALHOST:8000"}, False),
        ({"origin": "http://localhost"}, True), ({"origin": "http://localhost:80"}, True),
        ({"origin": "https://localhost:8000"}, True), ({"origin": "http://localhost:3000"}, True),
        ({"origin": "http://evil.test:8000"}, True), ({"origin": "null"}, True), ({"origin": ""}, True),
        ({"origin": "http://localhost:8000/"}, True), ({"origin": "http://x@localhost:8000"}, True),
        ({"origin": "http://localhost:8000.evil.test"}, True), ({"origin": "file://"}, True),
        ({"origin": "chrome-extension://abc"}, True),
    ],
)  # fmt: skip
def test_whose_pages_may_call(headers: dict[str, str], refused: bool) -> None:
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    for method in (b"POST", b"GET", b"HEAD", b"PUT", b"QUERY"):
        problem = fault(method, True, pairs, lambda: OWN)
        assert (problem is not None and problem.status == 403) is refused, method
    for method in (b"POST", b"DELETE"):
        assert (fault(method, False, pairs, lambda: OWN) is not None) is refused, (
            "also where there is no API"
        )
    for method in (b"GET", b"HEAD", b"OPTIONS"):
        assert fault(method, False, pairs, lambda: OWN) is None, (
            "pages and health only show something"
        )
    assert fault(b"OPTIONS", True, pairs, lambda: OWN) is None


def test_ports_that_need_not_be_said() -> None:
    for scheme, host, origin in (
        ("http", b"a", b"http://a:80"),
        ("https", b"a:443", b"https://a"),
        ("http", b"A.", b"http://a"),
    ):
        own = [(scheme, host)]
        assert fault(b"POST", True, [(b"origin", origin)], own.copy) is None
    assert fault(b"POST", True, [(b"origin", b"http://a")], lambda: [("https", b"a")]) is not None


def test_two_of_them_are_both_looked_at() -> None:
    for headers in (
        [(b"sec-fetch-site", b"cross-site"), (b"sec-fetch-site", b"same-origin")],
        [(b"origin", b"http://evil.test"), (b"origin", b"http://localhost:8000")],
    ):
        assert fault(b"POST", True, headers, lambda: OWN) is not None


# --- a real port ---


@pytest.fixture(scope="module")
def graph() -> Iterator[Served]:
    with served("doors:Doors", "--access-log") as graph:
        yield graph


def counted(graph: Served) -> int:
    with graph.client() as client:
        return int(client.post("/counted_so_far").json())


def ask(graph: Served, head: str, body: str = "") -> Answer:
    host, port = address(graph)
    framing = f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}"
    with socket.create_connection((host, port), 30) as sock:
        sock.sendall(head.format(port=port).replace("\n", "\r\n").encode() + framing.encode())
        (answer,) = answers(read_to_end(sock))
    return answer


TYPED = "Content-Type: application/json\n"


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("POST /count HTTP/1.1\nHost: localhost:{port}\n", 200),
        ("POST /count HTTP/1.1\nHost: 127.0.0.1:{port}\nOrigin: http://127.0.0.1:{port}\n", 200),
        ("POST /count HTTP/1.1\nHost: 127.0.0.1:{port}\nSec-Fetch-Site: same-origin\n", 200),
        ("POST /count HTTP/1.0\n", 200),
        ("POST http://localhost:{port}/count HTTP/1.1\nHost: localhost:{port}\n", 200),
        ("POST /count HTTP/1.1\nHost: evil.test:{port}\n", 421),
        ("POST /count HTTP/1.0\nHost: evil.test:{port}\n", 421),
        ("POST http://evil.test/count HTTP/1.1\nHost: evil.test\n", 421),
        ("POST http://evil.test/count HTTP/1.0\n", 421),
        ("GET / HTTP/1.1\nHost: evil.test\n", 421),
        ("GET /livez HTTP/1.1\nHost: evil.test\n", 421),
        ("POST /count HTTP/1.1\nHost: localhost:{port}\nOrigin: http://evil.test\n", 403),
        ("POST /count HTTP/1.1\nHost: localhost:{port}\nOrigin: null\n", 403),
        ("POST /count HTTP/1.1\nHost: localhost:{port}\nOrigin: http://localhost:1\n", 403),
        ("POST /count HTTP/1.1\nHost: localhost:{port}\nOrigin: https://localhost:{port}\n", 403),
        ("POST /%63ount?x HTTP/1.1\nHost: localhost:{port}\nSec-Fetch-Site: same-site\n", 403),
        ("POST /count HTTP/1.1\nHost: localhost\nSec-Fetch-Site: cross-site\nUpgrade: h2c\nConnection: upgrade\n", 403),
        ("GET /count HTTP/1.1\nHost: localhost:{port}\nSec-Fetch-Site: cross-site\n", 403),
        ("POST /livez HTTP/1.1\nHost: localhost:{port}\nSec-Fetch-Site: cross-site\n", 403),
        ("GET /livez HTTP/1.1\nHost: localhost:{port}\nSec-Fetch-Site: cross-site\n", 200),
        ("GET /docs HTTP/1.1\nHost: localhost:{port}\nSec-Fetch-Site: cross-site\n", 200),
        ("OPTIONS /count HTTP/1.1\nHost: localhost\nSec-Fetch-Site: cross-site\nOrigin: http://evil.test\n", 204),
    ],
)  # fmt: skip
def test_what_is_refused_executes_nothing(graph: Served, head: str, status: int) -> None:
    before = counted(graph)
    answer = ask(graph, head)
    assert answer.status == status, answer
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert counted(graph) == before + (status == 200 and "ount" in head)
    if status in (403, 421):
        path = (
            head.split(" ")[1]
            .removeprefix("http://evil.test")
            .removeprefix("http://localhost:{port}")
            .partition("?")[0]
        )
        graph.wait_log(
            rf"{head.split(' ')[0]} {path} {status} [0-9.]+ ms \[request"
            rf" {answer.headers['x-request-id']}\]"
        )
        assert answer.headers["connection"] == "close" and answer.problem["detail"]


@pytest.mark.parametrize("path", ["add", "length", "upload", "add_in_turn"])
def test_a_body_says_what_it_is(graph: Served, path: str) -> None:
    own = f"POST /{path} HTTP/1.1\nHost: localhost\n"
    raw = path in ("length", "upload")
    for kind in ("", "Content-Type: \n"):
        answer = ask(graph, own + kind, "{}")
        assert answer.status == 415
        assert ("application/octet-stream" if raw else "--json") in answer.problem["detail"]
    kinds = [("application/json", 200), ("application/octet-stream", 200 if raw else 415)]
    kinds += [("text/plain", 200 if raw else 415), ("image/png", 200 if raw else 415)]
    # (what says that it is a form, and is none)
    kinds += [("multipart/form-data; boundary=x", 400)]
    kinds += [("Multipart/Mixed", 415)]
    kinds += [
        ("application/x-www-form-urlencoded", 415),
        ("application/x-www-form-urlencoded; charset=utf-8", 415),
    ]
    for kind, status in kinds:
        body = '{"body": "aGk="}' if path == "length" and kind == "application/json" else "{}"
        answer = ask(graph, f"{own}Content-Type: {kind}\n", body)
        assert answer.status == status, (kind, answer)
        if "form" in kind and status == 415:
            assert ("--data-binary @FILE" if raw else "--json") in answer.problem["detail"]
    assert ask(graph, own).status == 200 or path == "length", "no body needs no type"


def test_a_page_and_its_forms_work_behind_tls_and_proxies(tmp_path: Path) -> None:
    path = tempfile.mkdtemp(prefix="gs-test-") + "/s"
    proxy = (
        "--proxy-headers",
        "--forwarded-allow-ips",
        "*",
        "--root-path",
        "/pre",
        "--allowed-hosts",
        "a.test,b.test",
    )
    with served("doors:Doors", "--uds", path, *proxy) as graph:
        transport = httpx.HTTPTransport(uds=path)
        with httpx.Client(transport=transport, base_url="http://a.test", timeout=60) as client:

            def status(**headers: str) -> int:
                return client.post(
                    "/pre/count", headers={name.replace("_", "-"): v for name, v in headers.items()}
                ).status_code

            assert status() == 200
            assert status(host="c.test") == 421
            assert status(origin="http://a.test") == 200
            assert status(origin="https://a.test") == 403
            assert status(origin="https://a.test", x_forwarded_proto="https") == 200
            assert status(origin="http://a.test", x_forwarded_proto="https") == 403
            assert (
                status(
                    origin="https://b.test", x_forwarded_proto="https", x_forwarded_host="b.test"
                )
                == 200
            )
            assert status(origin="https://c.test", x_forwarded_proto="https") == 403
    authority = trustme.CA()
    pem = tmp_path / "server.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(pem))
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    with (
        served("doors:Doors", "--ssl-certfile", str(pem)) as graph,
        httpx.Client(base_url=graph.url, verify=trust) as client,
    ):
        for origin, expected in ((graph.url, 200), (graph.url.replace("https", "http"), 403)):
            assert client.post("/count", headers={"origin": origin}).status_code == expected
        assert (
            client.post(
                "/count", headers={"x-forwarded-host": "c.test", "origin": "https://c.test"}
            ).status_code
            == 403
        )


def test_other_clients_notice_nothing(graph: Served) -> None:
    with graph.client() as client:
        assert client.post("/add", json={"x": 1}).json() == 1
        assert (
            client.post("/count").status_code == client.post("/count", json={}).status_code == 200
        )
        assert (
            client.post("/length", content=b"abc", headers={"content-type": "image/png"}).json()
            == 3
        )


# --- a real browser ---

ATTACKS = """
(async () => {
  const to = "TARGET", tries = [];
  const once = (path, init) => tries.push(fetch(to + path, init).then((r) => r.type + r.status, (e) => "failed"));
  for (const mode of ["no-cors", "cors"]) {
    once("/count", {mode, method: "POST"});
    once("/count", {mode, method: "POST", body: new Blob(["{}"])});
    once("/count", {mode, method: "POST", body: "{}", headers: {"Content-Type": "text/plain"}});
    once("/count", {mode, method: "POST", body: new URLSearchParams({a: "b"})});
    once("/count", {mode, method: "POST", body: new FormData()});
    once("/count", {mode, method: "POST", credentials: "include", redirect: "manual"});
  }
  once("/count", {method: "POST", body: "{}", headers: {"Content-Type": "application/json"}});
  navigator.sendBeacon(to + "/count", "{}");
  return await Promise.all(tries);
})()
"""


@pytest.fixture(scope="module")
def other_site() -> Iterator[str]:
    with page_elsewhere() as address:
        yield address


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_a_real_browser_cannot_be_used_against_the_port(
    graph: Served, other_site: str, tmp_path: Path
) -> None:
    browser = Browser(tmp_path)
    try:
        before = counted(graph)
        refused = graph.text.count("POST /count 403")
        browser.open(other_site, "document.title == 'other'")
        said = browser.run(ATTACKS.replace("TARGET", graph.url))
        assert all(each in ("failed", "opaque0") for each in said), "it learns nothing"
        # those that need no leave
        eventually(lambda: graph.text.count("POST /count 403") >= refused + 7)
        assert counted(graph) == before, "and nothing was executed"
        browser.open(f"{graph.url}/docs", "document.title.includes('Doors')")
        assert (
            browser.run("fetch('/count', {method: 'POST'}).then((answer) => answer.json())")
            == before + 1
        )
        assert browser.run(
            "fetch('/add', {method: 'POST', body: '{\"x\": 5}', headers: {'Content-Type': 'application/json'}})"
            ".then((answer) => answer.json())"
        ) == 5, "its own page calls it as ever"  # fmt: skip
    finally:
        browser.close()
