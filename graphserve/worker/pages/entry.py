"""The Starlette application of the entry: pages, and refusals in the words of the node. Runs in the entry's workers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request

from graphserve.worker.pages import docs
from graphserve.worker.pages.health import App


@dataclass(frozen=True)
class _Refusal:
    """An answer that the worker's own application gives."""

    app: App
    path: str
    method: str
    status: int
    allow: str

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app.refuse(send, self.path, self.method, self.status, self.allow)


def application(app: App, title: str, openapi: Callable[[], bytes], root_path: str) -> Starlette:
    """The entry's pages as an application.

    Args:
        app: what refuses what is not here.
        title: the entry's name.
        openapi: makes the OpenAPI document.
        root_path: the prefix that a proxy serves this under.
    """

    async def refused(request: Request, exc: Exception) -> Any:
        assert isinstance(exc, HTTPException)
        path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
        allow = ", ".join(sorted((exc.headers or {}).get("Allow", "").split(", ")))  # Starlette has a set of them
        return _Refusal(app, path, request.method, exc.status_code, allow)

    routes = list(docs.routes(title, openapi, root_path))
    application = Starlette(routes=routes, exception_handlers={HTTPException: refused})
    application.router.redirect_slashes = False  # it would lead to whatever host the Host header names
    return application
