"""`--reload`: which files are watched, and when they changed. Runs in the supervisor.

The only module that imports watchfiles, which is an extra; it is imported when a watch begins.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Iterable
from pathlib import Path

from graphserve.config import Config
from graphserve.errors import ConfigurationError
from graphserve.graph.plan import Plan

# a change is reported when nothing changed for this long: editors and git write many files at once
STEP_MS = 100
SOURCES = (".py", ".pyi", ".pyx", ".so")
# Folders that no program of the user's is in: what is written there is written by tools.
IGNORED = frozenset({"__pycache__", "node_modules", "site-packages"})


def folders(config: Config, plan: Plan) -> list[str]:
    """Return the folders to watch: those of `--reload-dir`,
    or else where the app's modules were found.
    """
    given = config.reload_dirs or [
        path for path in plan.sys_path if path not in config.settings.sys_path
    ]
    if not config.reload_dirs and plan.main:
        given = [*given, os.path.dirname(plan.main)]
    found = sorted({os.path.realpath(path) for path in given})
    return [
        path for path in found if not any(_within(path, other) for other in found if other != path)
    ]


async def changes(watched: Iterable[str], files: Iterable[str]) -> AsyncGenerator[list[str], None]:
    """Wait for changes: of sources below the watched folders, and of the files that the
    configuration is from.

    Yields:
        Nothing, when the watch has begun; then the paths that changed, each time when things have
        calmed down.

    Raises:
        ConfigurationError: a folder cannot be watched.
    """
    from watchfiles import Change, awatch

    roots, single = list(watched), _present(files)

    def counts(change: Change, path: str) -> bool:
        return path in single or _is_source(path, roots)

    paths = [*roots, *(path for path in single if not any(_within(path, root) for root in roots))]
    notices = awatch(*paths, watch_filter=counts, step=STEP_MS, ignore_permission_denied=True)
    following = asyncio.ensure_future(anext(notices))
    try:
        await asyncio.sleep(0)  # its first step begins the watch
        yield []
        while True:
            yield sorted({path for _, path in await following})
            following = asyncio.ensure_future(anext(notices))
    except OSError as exc:
        raise ConfigurationError(
            f"--reload cannot watch {', '.join(paths)}: {exc}. Watch less with --reload-dir, or"
            " allow more with `sysctl -w fs.inotify.max_user_watches=524288`"
        ) from None
    finally:
        following.cancel()


def _present(files: Iterable[str]) -> set[str]:
    return {os.path.realpath(path) for path in files if os.path.exists(path)}


def _is_source(path: str, roots: list[str]) -> bool:
    """Return whether a path is a source below one of the roots: an app may well live in a folder
    that has a dot in its name.
    """
    if not path.endswith(SOURCES):
        return False
    below = next((Path(path).relative_to(root).parts for root in roots if _within(path, root)), ())
    return bool(below) and not any(part in IGNORED or part.startswith(".") for part in below)


def _within(path: str, folder: str) -> bool:
    return Path(path).is_relative_to(folder)
