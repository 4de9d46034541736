"""The pages of the entry over HTTP: what they say, what they load, and that nothing in them points
outside.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest

APP = Path(__file__).with_name("pages_app.py")
HAS_SWAGGER = find_spec("swagger_ui_bundle") is not None
LOOKS = [
    pytest.param(["--plain"], id="own"),
    pytest.param(
        [],
        id="swagger",
        marks=pytest.mark.skipif(not HAS_SWAGGER, reason="needs the extra docs-ui"),
    ),
]
# Of the files in the npm release of swagger-ui-dist 5.31.0: the extra brings the very same.
RELEASED = {
    "swagger-ui-bundle.js": "93b7b0862a80e2786f85b560be7693c2344354ffa7e7e224f850a54349724c31",
    "swagger-ui.css": "9e576f8322132c76949da47f9bb53c891373c303ea3a761ff548ffc9de50a98c",
}
NAMED = re.compile(r'"(docs/[^"?]+)(\?v=[0-9a-f]+)?"')


@pytest.fixture(scope="module")
def site() -> Iterator[Callable[..., httpx.Client]]:
    """Start the application with some arguments, once for each; gives a client for it."""
    running: dict[tuple[str, ...], tuple[subprocess.Popen[str], httpx.Client]] = {}

    def start(*arguments: str) -> httpx.Client:
        if arguments not in running:
            process = subprocess.Popen(
                [sys.executable, str(APP), *arguments], stdout=subprocess.PIPE, text=True
            )
            assert process.stdout is not None
            port = process.stdout.readline().strip()
            running[arguments] = (
                process,
                httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False),
            )
        return running[arguments][1]

    yield start
    for process, client in running.values():
        client.close()
        process.kill()
        process.communicate()


@pytest.fixture(params=LOOKS)
def client(request: pytest.FixtureRequest, site: Callable[..., httpx.Client]) -> httpx.Client:
    return site(*request.param)


def test_the_root_leads_to_the_docs(client: httpx.Client) -> None:
    response = client.get("/")
    assert (response.status_code, response.headers["location"]) == (307, "/docs")


def test_the_page_carries_its_security_headers(client: httpx.Client) -> None:
    response = client.get("/docs")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"
    policy = dict(
        part.strip().split(" ", 1)
        for part in response.headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'self'"
    assert "script-src" not in policy and "connect-src" not in policy, (
        "scripts and calls fall under default-src"
    )
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["object-src"] == "'none'"
    assert not re.search(r"https?:|\*", response.headers["content-security-policy"])


def test_the_title_is_text(client: httpx.Client) -> None:
    assert "<title>Gateway &lt;1&gt;</title>" in client.get("/docs").text


def test_the_page_has_no_script_or_style_in_it(client: httpx.Client) -> None:
    page = client.get("/docs").text
    assert not any(re.findall(r"<script[^>]*>(.*?)</script>", page, re.DOTALL))
    assert "<style" not in page and " style=" not in page and not re.search(r"\son\w+=", page)


def test_every_file_of_the_page_is_served_and_may_be_kept(client: httpx.Client) -> None:
    named = NAMED.findall(client.get("/docs").text)
    assert named
    for path, version in named:
        response = client.get(f"/{path}{version}")
        assert response.status_code == 200 and response.content, path
        assert response.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert response.headers["x-content-type-options"] == "nosniff"
        kind = {
            "js": "text/javascript; charset=utf-8",
            "css": "text/css; charset=utf-8",
            "svg": "image/svg+xml",
        }
        assert response.headers["content-type"] == kind[path.rsplit(".", 1)[1]]


@pytest.mark.parametrize("query", ["", "?v=an-old-version"])
def test_a_file_of_no_known_version_is_asked_for_again(client: httpx.Client, query: str) -> None:
    assert client.get(f"/docs/icon.svg{query}").headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/docs/icon.svg"])
def test_what_the_browser_has_is_not_sent_again(client: httpx.Client, path: str) -> None:
    tag = client.get(path).headers["etag"]
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        response = client.get(path, headers={"If-None-Match": known})
        assert (response.status_code, response.content) == (304, b"")
        assert response.headers["etag"] == tag
    assert client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/docs/icon.svg"])
def test_head_has_the_headers_and_no_body(client: httpx.Client, path: str) -> None:
    got, head = client.get(path), client.head(path)
    assert (head.status_code, head.content) == (got.status_code, b"")
    assert head.headers["content-length"] == got.headers["content-length"]


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/docs/icon.svg"])
def test_other_methods_are_refused(client: httpx.Client, path: str) -> None:
    assert client.post(path).status_code == 405


STRANGE = ["../pages.py", "..%2fpages.py", "%2e%2e/pages.py", "%00", "a/icon.svg", "none.js"]


@pytest.mark.parametrize(
    "path", [*STRANGE, "forms.html", "swagger.html", "swagger-ui-bundle.js.map"]
)
def test_only_the_files_of_the_look_are_served(client: httpx.Client, path: str) -> None:
    assert client.get(f"/docs/{path}").status_code == 404


def test_the_document_is_the_one_that_was_given(client: httpx.Client) -> None:
    response = client.get("/openapi.json")
    assert response.headers["content-type"] == "application/json"
    assert "servers" not in response.json() and "/add" in response.json()["paths"]


@pytest.mark.parametrize("flag", ["--mount", "--root-path"])
def test_a_prefix_is_respected(site: Callable[..., httpx.Client], flag: str) -> None:
    client = site("--plain", flag, "/models")
    at = "/models" if flag == "--mount" else ""
    assert client.get(f"{at}/").headers["location"] == "/models/docs"
    assert client.get(f"{at}/openapi.json").json()["servers"] == [{"url": "/models"}]
    assert all(not path.startswith("/") for path, _ in NAMED.findall(client.get(f"{at}/docs").text))


def test_nothing_of_ours_names_another_host(site: Callable[..., httpx.Client]) -> None:
    import graphserve.worker.pages.docs as pages

    for path in Path(pages.__file__).with_name("static").iterdir():
        outside = re.findall(r"(?:https?:)?//[\w-]+\.[\w.-]+", path.read_text("utf-8"))
        assert set(outside) <= {"http://www.w3.org"}, path  # the name of SVG, which nobody fetches


def test_swagger_ui_asks_no_validator() -> None:
    import graphserve.worker.pages.docs as pages

    script = Path(pages.__file__).with_name("static").joinpath("swagger.js").read_text("utf-8")
    assert "validatorUrl: null" in script and "queryConfigEnabled: false" in script


@pytest.mark.skipif(not HAS_SWAGGER, reason="needs the extra docs-ui")
@pytest.mark.parametrize("name", RELEASED)
def test_swagger_ui_is_as_released(site: Callable[..., httpx.Client], name: str) -> None:
    assert hashlib.sha256(site().get(f"/docs/{name}").content).hexdigest() == RELEASED[name]


LAZY = """
import sys
opened = []
from graphserve.worker.pages.docs import routes
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
def openapi():
    raise AssertionError("built before the first request")
assert len(routes("Gateway", openapi)) == 5
assert not opened, opened
assert "swagger_ui_bundle" not in sys.modules
"""


def test_nothing_is_read_before_the_first_request() -> None:
    subprocess.run([sys.executable, "-c", LAZY], check=True, timeout=60)


OLD = """
import pathlib, sys
place = pathlib.Path(sys.argv[1], "swagger_ui_bundle", "vendor")
for version in sys.argv[2:]:
    folder = place / f"swagger-ui-{version}"
    folder.mkdir(parents=True)
    (folder / "swagger-ui-bundle.js").write_text("")
    (folder / "swagger-ui.css").write_text("")
(place.parent / "__init__.py").write_text("raise ImportError('found, not imported')")
sys.path.insert(0, sys.argv[1])
from graphserve.worker.pages import docs as pages
print(getattr(pages._swagger_ui(), "name", None))
"""


@pytest.mark.parametrize(
    ("versions", "found"), [(["4.15.5"], "None"), (["4.15.5", "5.31.0"], "swagger-ui-5.31.0")]
)
def test_swagger_ui_4_is_passed_over(tmp_path: Path, versions: list[str], found: str) -> None:
    command = [sys.executable, "-c", OLD, str(tmp_path), *versions]
    assert (
        subprocess.run(
            command, check=True, timeout=60, capture_output=True, text=True
        ).stdout.strip()
        == found
    )
