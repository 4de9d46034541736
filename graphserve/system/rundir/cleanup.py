"""Removes from a run folder what is ours: of a node, of a Plan, of graphs that were killed.

Only what has a name and a kind of ours is ever removed, no link is followed, and all else stays.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from graphserve.system.frozen import dataclass
from graphserve.system.rundir.lock import (
    FILE_FLAGS,
    FOLDER_FLAGS,
    Marker,
    is_live,
    is_lock_of,
    try_lock,
)
from graphserve.system.rundir.paths import LOCK, PREFIX, UNFINISHED
from graphserve.system.rundir.search import candidates, is_our_link

_SOCKET = stat.S_ISSOCK
_FILE = stat.S_ISREG
# By name what we make, and what kind of thing that is; the table of a folder is the same for what
# is in it. (The name of a socket ends in ~ until it listens.)
_Table: TypeAlias = "dict[str, Callable[[int], bool] | _Table]"
_CALL: _Table = {r".+": _FILE}
_NODE: _Table = {
    r"(q|b\d+|\d+)\.sock~?": _SOCKET,
    r"b\d+\.lease": _FILE,
    r"\d+\.files": {r"call-\w+": _CALL},
}
_REVISION: _Table = {r"plan\.json~?": _FILE}
_RUN: _Table = {r"(control|workers)\.sock~?": _SOCKET, r"\d+": _REVISION, r"n\d+": _NODE}


def remove_node(run: Path, node: str) -> None:
    """Remove the folder of a node that has ended, in a folder that is ours.

    Args:
        run: the run folder.
        node: the id of the node (`NodePlan.id`), as everywhere below.
    """
    _remove_part(run, node)


def remove_revision(run: Path, number: int) -> None:
    """Remove the folder of a Plan that no worker reads any more, in a folder that is ours."""
    _remove_part(run, str(number))


def _remove_part(run: Path, name: str) -> None:
    with contextlib.suppress(OSError):
        folder = os.open(run, FOLDER_FLAGS)
        try:
            _remove(folder, name, _RUN)
        finally:
            os.close(folder)


@dataclass(frozen=True)
class Stale:
    """What graphs that were killed have left.

    Args:
        tokens: those of these graphs.
        foreign: paths in their folders that are not ours; they stay.
    """

    tokens: tuple[str, ...]
    foreign: tuple[str, ...]


def remove_stale() -> Stale:
    """Remove the run folders of ours whose graph was killed, and our links to such;
    nothing else is touched.
    """
    tokens, foreign = [], []
    for path in (*candidates(PREFIX), *candidates(UNFINISHED)):
        with contextlib.suppress(OSError):
            if path.is_symlink():
                if is_our_link(path) and not is_live(path):
                    path.unlink()
                continue
            folder = os.open(path, FOLDER_FLAGS | os.O_NOFOLLOW)
            try:
                lock = _stale_lock(folder)
                if lock is None:
                    continue
                try:
                    marker = Marker.read(lock)
                    assert marker is not None
                    tokens.append(marker.token)
                    left = clear(folder)
                    foreign += [str(path / name) for name in left]
                    os.unlink(LOCK, dir_fd=folder)  # while we hold it, nobody claims it
                    if not left:
                        path.rmdir()
                finally:
                    os.close(lock)
            finally:
                os.close(folder)
    return Stale(tuple(tokens), tuple(foreign))


def _stale_lock(folder: int) -> int | None:
    """Take the lock of a run folder of ours that nobody holds; None if this is no such folder."""
    if os.fstat(folder).st_uid != os.geteuid():
        return None
    lock = os.open(LOCK, os.O_RDONLY | FILE_FLAGS, dir_fd=folder)
    state = os.fstat(lock)
    ours = (
        stat.S_ISREG(state.st_mode)
        and state.st_uid == os.geteuid()
        and Marker.read(lock) is not None
    )
    if ours and try_lock(lock) and is_lock_of(folder, lock):
        return lock
    os.close(lock)
    return None


def clear(folder: int, table: _Table = _RUN) -> list[str]:
    """Remove what we make in a folder that is open, and follow nothing.

    Returns:
        The names of what is not ours.
    """
    return [
        left
        for name in sorted(os.listdir(folder))
        if name != LOCK
        for left in _remove(folder, name, table)
    ]


def _remove(folder: int, name: str, table: _Table) -> list[str]:
    kind = next((kind for pattern, kind in table.items() if re.fullmatch(pattern, name)), None)
    try:
        mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
        if isinstance(kind, dict) and stat.S_ISDIR(mode):
            inner = os.open(name, FOLDER_FLAGS | os.O_NOFOLLOW, dir_fd=folder)
            try:
                left = [f"{name}/{each}" for each in clear(inner, kind)]
            finally:
                os.close(inner)
            if not left:
                os.rmdir(name, dir_fd=folder)
            return left
        if callable(kind) and kind(mode):
            os.unlink(name, dir_fd=folder)
            return []
    except FileNotFoundError:  # a worker that ends removes its own socket
        return []
    return [name]
