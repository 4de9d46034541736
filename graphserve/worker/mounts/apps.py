"""What was mounted, as ASGI applications. Runs in entry workers.

Starlette serves folders; a2wsgi runs WSGI applications, in threads.
"""

from __future__ import annotations

import os
import re
from collections.abc import MutableMapping
from pathlib import PurePath
from typing import Any, cast

from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from graphserve.declare.mounts import Mount, kind_of
from graphserve.graph.mounts import MountFailed, load, problem
from graphserve.wire.problem import HttpProblem
from graphserve.worker.http.asgi import AsgiApp, Receive, Send, send_problem

_RANGE = rb"\s*(?:\d{1,19}-\d{0,19}|-\d{1,19})\s*"
_RANGES = re.compile(rb"bytes=(%b(?:,%b)*)" % (_RANGE, _RANGE), re.IGNORECASE)
WSGI_THREADS = 10  # of one application: as many requests of it are executed at once


def application(mount: Mount, node: str) -> AsgiApp:
    """Return a mount as an ASGI application.

    Args:
        mount: what was mounted.
        node: the node's name, for refusals.

    Raises:
        MountFailed: it cannot be served.
        Exception: whatever its module raised while it was imported.
    """
    if mount.folder:
        return cast("AsgiApp", _Folder(node, mount.folder))
    if (wrong := problem(mount)) is not None:
        raise MountFailed(wrong)
    app = load(mount)
    if kind_of(app) == "wsgi":
        from a2wsgi import WSGIMiddleware

        return cast("AsgiApp", WSGIMiddleware(cast("Any", app), workers=WSGI_THREADS))
    return cast("AsgiApp", app)


def takes_sockets(mount: Mount) -> bool:
    """Return whether a mount may be asked for a WebSocket: it is an ASGI application."""
    return not mount.folder and kind_of(load(mount)) == "asgi"


def _with_sound_range(scope: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Return a scope without a Range that is none: then the whole file is sent, as of a result of
    `Path` (RFC 9110, 14.2). Starlette would refuse it in plain text.
    """
    ranges = [value for name, value in scope["headers"] if name == b"range"]
    if not ranges or (len(ranges) == 1 and _is_sound(ranges[0])):
        return scope
    headers = [field for field in scope["headers"] if field[0] != b"range"]
    return {**scope, "headers": headers}


def _is_sound(value: bytes) -> bool:
    found = _RANGES.fullmatch(value.strip())
    if found is None:
        return False
    parts = [part.strip().partition(b"-") for part in found[1].split(b",")]
    return all(not (start and end) or int(start) <= int(end) for start, _, end in parts)


class _Folder(StaticFiles):
    """A folder of files; what begins with a dot (`.git`, `.env`) is not shown.

    Args:
        node: the node's name, for refusals.
        folder: where they are.
    """

    def __init__(self, node: str, folder: str) -> None:
        super().__init__(directory=folder, html=True)
        self._node = node

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer with a file (ASGI, for `http` scopes)."""
        try:
            await super().__call__(_with_sound_range(scope), receive, send)
        except HTTPException as exc:
            path = scope["path"].removeprefix(scope["root_path"])
            headers = dict(exc.headers or {})
            said = f"there is no file {path}"
            if exc.status_code == 405:
                said = f"{path} is a file, which takes GET and HEAD, not {scope['method']}"
                headers = {"allow": "GET, HEAD"}
            await send_problem(
                send, HttpProblem(exc.status_code, said, headers=headers), self._node
            )

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        """Find a file (Starlette)."""
        hidden = [part for part in PurePath(path).parts if part.startswith(".")]
        if hidden not in ([], [".well-known"]):
            return "", None
        return super().lookup_path(path)
