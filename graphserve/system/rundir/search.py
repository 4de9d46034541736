"""The run folders of this user whose graphs run: in the usual place, elsewhere, and removed ones.

Used by commands that look for a running graph, and by a start that cleans up.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from graphserve.errors import StartupError
from graphserve.system.rundir.lock import is_live
from graphserve.system.rundir.paths import LOCK, PREFIX, parent

# One in a few hundred reads leaves out a given lock, where two processes lock and unlock all the
# time.
READS = 4
PAGE = 2048  # bytes: a list that is shorter comes in one piece


def live_folders() -> list[Path]:
    """Return the run folders in which a graph of this user runs,
    also those that were chosen with `--run-dir`.
    """
    return sorted(
        {Path(os.path.realpath(folder)) for folder in candidates(PREFIX) if is_live(folder)}
    )


def removed_folders() -> set[Path]:
    """Return the run folders that somebody removed although their graphs run, which make them again
    within a second.

    The process that has locked such a folder has it open still, and the lock in it.
    """
    found: set[Path] = set()
    for pid in _lock_holders():
        with contextlib.suppress(OSError):
            place = Path(f"/proc/{pid}")
            if place.stat().st_uid == os.geteuid():
                found |= _folders_held_by(place / "fd")
    return found


def in_usual_place(folders: set[Path]) -> set[Path]:
    """Return those of these folders that `live_folders` looks at, though they may be gone."""
    try:
        place = Path(os.path.realpath(parent()))
    except StartupError:
        return set()
    return {
        folder
        for folder in folders
        if (folder.parent == place and folder.name.startswith(PREFIX))
        or is_our_link(link_to(folder))
    }


def candidates(prefix: str) -> Iterator[Path]:
    """Yield what may be run folders in the usual place,
    and links to those elsewhere, by name and owner.
    """
    try:
        place = parent()
    except StartupError:
        return
    for folder in sorted(place.glob(prefix + "*")):
        with contextlib.suppress(OSError):
            if folder.lstat().st_uid == os.geteuid() and (folder.is_symlink() or folder.is_dir()):
                yield folder


def link_to(folder: Path) -> Path:
    """Return the path of the link that leads to a run folder elsewhere.

    Its name is made from where it leads, so it proves itself ours.
    """
    return parent() / f"{PREFIX}{hashlib.blake2b(os.fsencode(folder), digest_size=6).hexdigest()}"


def is_our_link(link: Path) -> bool:
    """Return whether this is a link that a graph of ours left to its run folder."""
    try:
        return link_to(Path(os.readlink(link))).name == link.name
    except OSError:  # it is no link
        return False


def _lock_holders() -> set[int]:
    """Return the processes that hold a lock of flock(2).

    The kernel hands out a list of locks in pages, and begins each at a number: where locks come and
    go meanwhile, as those on shared memory do, it leaves out others. So a long one is read again.
    """
    holders: set[int] = set()
    with contextlib.suppress(OSError):
        for _ in range(READS):
            text = _read_locks()
            lines = [line.split() for line in text.splitlines()]
            holders |= {int(fields[4]) for fields in lines if fields[1] == "FLOCK"}
            if len(text) < PAGE:
                break
    return holders


def _read_locks() -> str:
    return Path("/proc/locks").read_text()


def _folders_held_by(descriptors: Path) -> set[Path]:
    """Return the removed run folders that a process has open, with the locks in them."""
    gone = " (deleted)"  # proc(5)
    names = set()
    for entry in descriptors.iterdir():
        with contextlib.suppress(OSError):
            names.add(os.readlink(entry))
    locks = [
        name.removesuffix(f"/{LOCK}{gone}") for name in names if name.endswith(f"/{LOCK}{gone}")
    ]
    return {Path(folder) for folder in locks if folder + gone in names}
