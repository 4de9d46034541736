"""What `@service(mount={"/ui": app, "/static": "folder"})` names: applications and folders that the
port of the entry serves beside its APIs. Knows no process.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Literal

from graphserve.declare.options import RESERVED_ROUTES
from graphserve.declare.routes import name_in, route_problem, segments
from graphserve.system.frozen import dataclass

AppKind = Literal["asgi", "wsgi"]

_IMPORT = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*\Z")
_WHAT = (
    "an ASGI application (FastAPI, Starlette), a WSGI application (Flask, Django), the import"
    " string of one ('module:app'), or a folder of files"
)


@dataclass(frozen=True)
class Mount:
    """One of them.

    Args:
        path: where it is, such as `/ui`; empty for all that nothing else answers.
        folder: of files, absolute; empty if it is an application.
        target: the import string of the application, if it was given so.
        app: the application itself, if that was given.
    """

    path: str
    folder: str = ""
    target: str = ""
    app: object = field(default=None, repr=False, compare=False)

    @property
    def written(self) -> str:
        """Return its path as people write it."""
        return self.path or "/"


class MountProblem(ValueError):
    """Raised for a mount that cannot be one; the message says what to write."""


def read_mounts(given: object, base: str) -> tuple[Mount, ...]:
    """Return the mounts that `@service(mount=…)` was given, the longest path first.

    Args:
        given: what was written.
        base: the folder of the file that it was written in, where relative folders start.

    Raises:
        MountProblem: one of them cannot be.
    """
    if not isinstance(given, Mapping):
        raise MountProblem(
            f"mount is a dict of paths, such as {{'/ui': app, '/static': 'folder'}}, not {given!r}"
        )
    found: dict[str, Mount] = {}
    for path, value in given.items():
        mount = _read(path, value, base)
        if mount.path in found:
            raise MountProblem(f"mount has {mount.written!r} twice: each path has one")
        found[mount.path] = mount
    return tuple(sorted(found.values(), key=lambda mount: -len(mount.path)))


def _read(path: object, value: object, base: str) -> Mount:
    if not isinstance(path, str) or not path.startswith("/"):
        raise MountProblem(f"mount: a path starts with '/', such as '/ui', not {path!r}")
    bare = path.removesuffix("/")
    if bare and (wrong := route_problem(bare)) is not None:
        raise MountProblem(f"mount: {wrong.replace('; give route=…', '')}")
    if any(name_in(segment) is not None for segment in segments(bare)):
        raise MountProblem(f"mount: a path has no {{parameters}}, as {path!r} has")
    if any(bare == taken or bare.startswith(taken + "/") for taken in RESERVED_ROUTES):
        raise MountProblem(f"mount: {path!r} is a path of graphserve itself: take another one")
    if isinstance(value, str) and _IMPORT.match(value):
        return Mount(bare, target=value)
    if isinstance(value, (str, os.PathLike)):
        folder = os.path.abspath(os.path.join(base, os.fspath(value)))
        if not os.path.isdir(folder):
            raise MountProblem(f"mount: there is no folder {folder}, which {path!r} names")
        return Mount(bare, folder=folder)
    if (wrong := app_problem(value)) is not None:
        raise MountProblem(f"mount: {path!r}: {wrong}")
    return Mount(bare, app=value)


def kind_of(app: object) -> AppKind | None:
    """Return which kind of application an object is; None if it is none."""
    if not callable(app) or isinstance(app, type):
        return None
    called = getattr(type(app), "__call__", app) if not inspect.isroutine(app) else app  # noqa: B004
    if inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(called):
        return "asgi"
    try:
        parameters = inspect.signature(app).parameters.values()
    except (TypeError, ValueError):
        return None
    needed = [
        each
        for each in parameters
        if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
        and each.default is each.empty
    ]
    kinds: dict[int, AppKind] = {3: "asgi", 2: "wsgi"}
    return kinds.get(len(needed))


def app_problem(app: object) -> str | None:
    """Return what is wrong with what should be an application, and what to write; None if nothing
    is.
    """
    if type(app).__module__.partition(".")[0] == "gradio" and hasattr(app, "launch"):
        return (
            f"a {type(app).__name__} of gradio is no application yet: give"
            " gradio.routes.App.create_app(blocks)"
        )
    if isinstance(app, type):
        return f"it is {_WHAT}, not the class {app.__name__}: give an instance of it"
    if kind_of(app) is None:
        return f"it is {_WHAT}, not {app!r}"
    return None


def conflict(mounts: Iterable[Mount], what: str, route: str) -> str | None:
    """Return why a path that the service answers itself and a mount cannot be told apart, in words;
    None if they can.

    Args:
        mounts: the mounts.
        what: has the path: `Gateway.read`.
        route: the path, which may have parameters.
    """
    parts = segments(route)
    for mount in mounts:
        own = segments(mount.path)
        if (
            own
            and len(parts) >= len(own)
            and all(
                part == each or name_in(part) is not None
                for part, each in zip(parts, own, strict=False)
            )
        ):
            return (
                f"{what} has the route {route!r}, and mount has {mount.written!r}, which takes all"
                " paths below it: give one of them another path"
            )
    return None
