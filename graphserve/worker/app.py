"""The ASGI application of a worker: health, documents, and clear words for what does not exist. Runs in workers.

APIs do not come here; the protocol takes them a direct way.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from graphserve.call.request import new_request_id
from graphserve.errors import closest
from graphserve.worker.execute import BoundApi
from graphserve.wire import openapi, problem
from graphserve.wire.problem import HttpProblem


class Health:
    """Readiness of this worker, from state that is already here; nothing is asked, so nothing hangs.

    Args:
        node: this node's name.
        missing: gives what is missing below, in words.
    """

    def __init__(self, node: str, missing: Callable[[], list[str]]) -> None:
        self.node, self._missing = node, missing
        self.state = "starting"

    def live(self, request: Request) -> Response:
        """`GET /livez`."""
        return _json({"status": "ok", "service": self.node}, 200)

    def ready(self, request: Request) -> Response:
        """`GET /readyz`."""
        missing = self._missing()
        if self.state != "ready":
            missing.insert(0, f"{self.node} is {self.state}")
        if not missing:
            return _json({"status": "ready", "service": self.node}, 200)
        return _json({"status": "not ready", "service": self.node, "missing": missing}, 503)


def build(health: Health, apis: dict[str, BoundApi], pages: list[Route]) -> Starlette:
    """The application.

    Args:
        health: what answers `/livez` and `/readyz`.
        apis: the node's APIs, for the words of 404 and 405.
        pages: what the entry serves besides.
    """
    routes = {api.plan.route: api for api in apis.values()}

    async def live(request: Request) -> Response:
        return health.live(request)

    async def ready(request: Request) -> Response:
        return health.ready(request)

    def refused(request: Request, exc: Exception) -> Response:
        assert isinstance(exc, HTTPException)
        path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
        return _refusal(exc, path, request.method, routes, health.node)

    return Starlette(
        routes=[Route("/livez", live), Route("/readyz", ready), *pages], exception_handlers={HTTPException: refused}
    )


def _refusal(exc: HTTPException, path: str, method: str, routes: dict[str, BoundApi], node: str) -> Response:
    status, headers, detail = exc.status_code, dict(exc.headers or {}), f"{method} {path}: {exc.detail}"
    if path in routes:
        status, detail, headers["allow"] = 405, f"{path} takes POST, not {method}", "POST"
    elif status == 404:
        guess = closest(path, list(routes))
        detail = f"there is no API at {path}; " + (f"did you mean {guess}?" if guess else f"there are: {', '.join(routes)}")
    elif status == 405:
        detail = f"{path} takes {headers.get('Allow', 'GET')}, not {method}"
    error = HttpProblem(status, detail, headers=headers)
    request_id = new_request_id().decode()
    status, pairs, body = problem.encode(error, node=node, request_id=request_id, open_book=False)
    kept = {name.decode(): value.decode() for name, value in pairs if not name.startswith(b"x-graphserve-")}
    return Response(body, status, {**kept, "x-request-id": request_id})


def openapi_document(name: str, cls: type, apis: dict[str, BoundApi]) -> bytes:
    """`/openapi.json`: the node's APIs as OpenAPI 3.1, from their signatures."""
    from graphserve.service import apis as declared

    specs = declared(cls)
    described = [(specs[api.plan.name], api.signature, api.method.__doc__) for api in apis.values()]
    return json.dumps(openapi.document(name, cls.__doc__, "1", described)).encode()


def _json(value: dict[str, Any], status: int) -> Response:
    return JSONResponse(value, status)
