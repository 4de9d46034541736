"""The applications that are mounted: imported where that is needed, and checked.

Runs in the resolver and in entry workers.
"""

from __future__ import annotations

import importlib
import importlib.util

from graphserve.declare.mounts import Mount, app_problem, kind_of


class MountFailed(Exception):
    """Raised for a mount that cannot be served; the message says what to do."""


def load(mount: Mount) -> object:
    """Return the application that was mounted, which may have to be imported.

    Raises:
        MountFailed: there is none.
        Exception: whatever its module raised while it was imported.
    """
    if not mount.target:
        return mount.app
    module, _, names = mount.target.partition(":")
    found: object = importlib.import_module(module)
    for name in names.split("."):
        found = getattr(found, name, None)
    if found is None:
        raise MountFailed(f"mount: {mount.target!r} names nothing in the module {module!r}")
    if (wrong := app_problem(found)) is not None:
        raise MountFailed(f"mount: {mount.target!r}: {wrong}")
    return found


def problem(mount: Mount) -> str | None:
    """Return what is missing to serve a mount, in words; None if nothing is.

    Raises:
        Exception: whatever its module raised while it was imported.
    """
    if mount.folder:
        return None
    try:
        app = load(mount)
    except MountFailed as exc:
        return str(exc)
    if kind_of(app) == "wsgi" and importlib.util.find_spec("a2wsgi") is None:
        return (
            f"mount: {mount.written!r} is a WSGI application, which a2wsgi runs, and that is not"
            " installed: pip install a2wsgi (the extra `wsgi`), or mount an ASGI application"
        )
    return None
