"""The pages of the entry (`/openapi.json`, `/docs`, `/`), served by the entry's workers without
anything from outside.

`application` makes a Starlette application of them; what it does not have is refused in the words
of the worker's own application.

`/docs` is Swagger UI where the extra `docs-ui` is installed, and otherwise a page of our own with a
form for each API. Both load only files that this process serves; nothing is looked for, read or
hashed before the first request.
"""

from __future__ import annotations

import hashlib
import html
import importlib.util
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from graphserve.declare.options import OPENAPI_ROUTE
from graphserve.system import own_json
from graphserve.wire.formats import Format
from graphserve.worker.pages.application import WorkerApp, path_in

if TYPE_CHECKING:
    from graphserve.worker.dispatch.executor import BoundApi
    from graphserve.worker.http.asgi import Receive, Scope, Send

_STATIC = Path(__file__).with_name("static")
_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_FORMS_FILES = (
    "forms.css",
    "forms.js",
    "operation.js",
    "query.js",
    "body.js",
    "fields.js",
    "schema.js",
    "answer.js",
    "json.js",
    "icon.svg",
)
_SWAGGER_FILES = ("swagger-ui-bundle.js", "swagger-ui.css")
_ONE_YEAR_S = 31_536_000

# Frames are refused: a foreign page could lay the forms under its own and have them clicked.
_POLICY = (
    "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src"
    " 'none'"
)
# blob: is how an answer that is an image is shown
_FORMS_POLICY = f"{_POLICY}; img-src 'self' blob:"
# Swagger UI draws its icons from data: URLs and writes style attributes; its scripts need nothing
# beyond 'self'.
_SWAGGER_POLICY = f"{_POLICY}; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'"


def routes(title: str, openapi: Callable[[], bytes], root_path: str = "") -> list[Route]:
    """Return the routes of `/openapi.json`, `/docs`, the files below `/docs/` and `/`, which leads
    to `/docs`.

    Args:
        title: the name in the browser's title bar, as plain text.
        openapi: gives the OpenAPI document as JSON; called once, at the first request, in a thread.
        root_path: the prefix under which a proxy serves the application, where the ASGI scope does
            not name one.
    """
    pages = _Pages(title, openapi, root_path)
    return [
        Route("/", pages.index, methods=["GET"], include_in_schema=False),
        Route(OPENAPI_ROUTE, pages.document, methods=["GET"], include_in_schema=False),
        Route("/docs", pages.docs, methods=["GET"], include_in_schema=False),
        Route("/docs/", pages.index, methods=["GET"], include_in_schema=False),
        Route("/docs/{name}", pages.file, methods=["GET"], include_in_schema=False),
    ]


@dataclass(frozen=True)
class _Content:
    """Bytes that are ready to be served, and the version that a browser may keep."""

    body: bytes
    media_type: str
    version: str

    @classmethod
    def of(cls, body: bytes, media_type: str) -> _Content:
        return cls(body, media_type, hashlib.sha256(body).hexdigest()[:20])

    def respond(self, request: Request, cache_control: str = "no-cache") -> Response:
        """Answer with the content, or with 304 where the browser already has this version."""
        headers = {
            "ETag": f'"{self.version}"',
            "Cache-Control": cache_control,
            "X-Content-Type-Options": "nosniff",
        }
        if _has(request, self.version):
            return Response(status_code=304, headers=headers)
        return Response(self.body, headers=headers, media_type=self.media_type)


@dataclass(frozen=True)
class _Look:
    """One look of `/docs`: its page, its Content-Security-Policy, and the files it may load, by the
    name in the URL.
    """

    page: Path
    policy: str
    files: Mapping[str, Path]


class _Pages:
    """The endpoints.

    Those that may read a file or build the document are plain functions: they run in a thread.
    """

    def __init__(self, title: str, openapi: Callable[[], bytes], root_path: str) -> None:
        self._title = title
        self._openapi = openapi
        self._root_path = root_path
        self._document: tuple[str, _Content] | None = None

    async def index(self, request: Request) -> Response:
        # A path alone: whatever Host says, and whether there is TLS before us, the browser stays
        # where it is.
        return RedirectResponse(f"{self._prefix(request)}/docs", status_code=307)

    def document(self, request: Request) -> Response:
        prefix = self._prefix(request)
        if self._document is None or self._document[0] != prefix:
            body = _with_servers(self._openapi(), prefix)
            self._document = (prefix, _Content.of(body, Format.JSON.value.decode()))
        return self._document[1].respond(request)

    def docs(self, request: Request) -> Response:
        response = _page(self._title).respond(request)
        response.headers["Content-Security-Policy"] = _look().policy
        response.headers["Referrer-Policy"] = "no-referrer"
        return response

    def file(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in _look().files:
            raise HTTPException(404)
        content = _file(name)
        # A URL that names the version never changes its content; a bare one is asked for again each
        # time.
        kept = request.query_params.get("v") == content.version
        return content.respond(
            request, f"public, max-age={_ONE_YEAR_S}, immutable" if kept else "no-cache"
        )

    def _prefix(self, request: Request) -> str:
        return str(request.scope.get("root_path") or self._root_path).rstrip("/")


@cache
def _look() -> _Look:
    """Choose the look, once for the process."""
    swagger = _swagger_ui()
    if swagger is None:
        return _Look(
            _STATIC / "forms.html", _FORMS_POLICY, {name: _STATIC / name for name in _FORMS_FILES}
        )
    own = {name: _STATIC / name for name in ("swagger.js", "swagger.css", "icon.svg")}
    theirs = {name: swagger / name for name in _SWAGGER_FILES}
    return _Look(_STATIC / "swagger.html", _SWAGGER_POLICY, own | theirs)


def _swagger_ui() -> Path | None:
    """Return the folder of the files of Swagger UI 5 (the first that reads OpenAPI 3.1), found
    without an import.
    """
    spec = importlib.util.find_spec("swagger_ui_bundle")
    for place in (spec.submodule_search_locations if spec else None) or ():
        # An old `swagger-ui-bundle` installs the same package with 4.x in it.
        for folder in sorted(Path(place, "vendor").glob("swagger-ui-5.*")):
            if all((folder / name).is_file() for name in _SWAGGER_FILES):
                return folder
    return None


@cache
def _file(name: str) -> _Content:
    path = _look().files[name]
    return _Content.of(path.read_bytes(), _MEDIA_TYPES[path.suffix])


@cache
def _page(title: str) -> _Content:
    """Fill in the page: the title, and the version of each file that it loads.

    URLs in the page are relative, so it works under any prefix, also one that only the proxy knows.
    """
    text = _look().page.read_text("utf-8").replace("{title}", html.escape(title))
    text = re.sub(
        r'"docs/([\w.-]+)"', lambda found: f'"docs/{found[1]}?v={_file(found[1]).version}"', text
    )
    return _Content.of(text.encode(), _MEDIA_TYPES[".html"])


def _with_servers(body: bytes, prefix: str) -> bytes:
    """Name the prefix in the document, which says that it is served at `/`."""
    if not prefix:
        return body
    document = own_json.loads(body)
    document["servers"] = [{"url": prefix}]
    return own_json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _has(request: Request, version: str) -> bool:
    tags = (
        tag.strip().removeprefix("W/").strip('"')
        for tag in request.headers.get("if-none-match", "").split(",")
    )
    return any(tag in ("*", version) for tag in tags)


@dataclass(frozen=True)
class _Refusal:
    """An answer that the worker's own application gives."""

    app: WorkerApp
    path: str
    method: str
    status: int
    allow: str

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app.refuse(send, self.path, self.method, self.status, self.allow)


def application(
    app: WorkerApp, title: str, openapi: Callable[[], bytes], root_path: str
) -> Starlette:
    """Return the entry's pages as an application.

    Args:
        app: what refuses what is not here.
        title: the entry's name.
        openapi: makes the OpenAPI document.
        root_path: the prefix that a proxy serves this under.
    """

    async def refused(request: Request, exc: Exception) -> Any:
        assert isinstance(exc, HTTPException)
        path = path_in(request.scope)
        # Starlette has a set of them
        allow = ", ".join(sorted((exc.headers or {}).get("Allow", "").split(", ")))
        return _Refusal(app, path, request.method, exc.status_code, allow)

    found = routes(title, openapi, root_path)
    application = Starlette(routes=found, exception_handlers={HTTPException: refused})
    # it would lead to whatever host the Host header names
    application.router.redirect_slashes = False
    return application


def openapi_document(
    name: str,
    cls: type,
    apis: dict[str, BoundApi],
    version: str | None = None,
    *,
    keys: bool = False,
) -> bytes:
    """Return `/openapi.json`: the node's APIs as OpenAPI 3.1, from their signatures.

    Args:
        name: of the node.
        cls: its class.
        apis: its APIs, by name.
        version: of what it offers.
        keys: whether clients need an API key.
    """
    from graphserve.declare.declaration import apis as declared
    from graphserve.wire.openapi.document import document, with_keys

    specs = declared(cls)
    described = [(specs[api.plan.name], api.signature, api.method.__doc__) for api in apis.values()]
    said = document(name, cls.__doc__, version or "0", described)
    return own_json.dumps(with_keys(said) if keys else said).encode()
