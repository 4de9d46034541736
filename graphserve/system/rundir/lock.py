"""The lock of a run folder and the marker in it: whether a folder is ours, whether its graph runs.

A folder is known as ours by the marker. A graph runs in it while the lock is held (flock(2)).
Whoever holds it has locked the folder itself too, shared: systemd-tmpfiles leaves such a folder
alone, and where somebody has removed the lock, the folder still shows that it is in use.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
import time
from pathlib import Path

from graphserve.system.frozen import dataclass
from graphserve.system.rundir.paths import LOCK

# the marker in the lock begins with it; another layout gets another number
FORMAT = "graphserve-run-folder 1"
MADE, KEPT = "made", "kept"  # in the marker: whether the folder was made by the graph
_MARKER = re.compile(
    rb"%s ([0-9a-f]{16}) (%s|%s)\n" % tuple(word.encode() for word in (FORMAT, MADE, KEPT))
)
# a link is not followed, a FIFO does not hold us up
FILE_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# seconds that a start waits for who has locked its folder, such as a cleaner that looks at it
FOLDER_PATIENCE = 1.0
STEP = 0.01  # seconds between two tries meanwhile


@dataclass(frozen=True)
class Marker:
    """What is written in the lock of a run folder; by it a folder is known as one of ours.

    Args:
        token: of the graph that runs there, or was killed there.
        made: whether the graph made the folder: then it is removed with what is in it.
    """

    token: str
    made: bool

    def write(self, lock: int) -> None:
        """Write the marker into an open lock."""
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{FORMAT} {self.token} {MADE if self.made else KEPT}\n".encode(), 0)

    @classmethod
    def read(cls, lock: int) -> Marker | None:
        """Read the marker of an open lock; None: we did not write it."""
        match = _MARKER.fullmatch(os.pread(lock, 200, 0))
        return cls(match[1].decode(), match[2].decode() == MADE) if match else None


def is_live(folder: Path) -> bool:
    """Return whether a graph runs in this folder: its lock has our marker, and is held.

    Where somebody removed the lock, the graph makes it anew; until it is written, it is the folder
    that is held.
    """
    try:
        lock = _open_lock(folder)
    except FileNotFoundError:
        return is_held(folder)
    except OSError:
        return False
    try:
        if os.fstat(lock).st_size == 0:
            return is_held(folder)
        return Marker.read(lock) is not None and not try_lock(lock, fcntl.LOCK_SH)
    finally:
        os.close(lock)


def token_of(folder: Path) -> str:
    """Return the token of the graph that runs in a folder, or was killed there;
    empty if there is none.
    """
    lock = _open_lock(folder)
    try:
        marker = Marker.read(lock)
        return marker.token if marker is not None else ""
    finally:
        os.close(lock)


def _open_lock(folder: Path) -> int:
    """Open the lock of a folder for reading.

    Raises:
        OSError: there is none, or none that we could have made.
    """
    lock = os.open(folder / LOCK, os.O_RDONLY | FILE_FLAGS)
    if not stat.S_ISREG(os.fstat(lock).st_mode):
        os.close(lock)
        raise OSError("this is no file")
    return lock


def try_lock(descriptor: int, how: int = fcntl.LOCK_EX) -> bool:
    """Take the lock of an open file, and return whether nobody else held it."""
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_lock_of(folder: int, lock: int) -> bool:
    """Return whether what we took is still the folder's lock:
    one that was removed meanwhile locks nobody out.
    """
    try:
        return os.path.samestat(os.fstat(lock), os.stat(LOCK, dir_fd=folder, follow_symlinks=False))
    except FileNotFoundError:
        return False


def has_lock(folder: int) -> bool:
    """Return whether the folder that is open has a lock in it, held or not."""
    return LOCK in os.listdir(folder)


def is_at(path: Path, folder: int) -> bool:
    """Return whether the folder that is open still has this path."""
    try:
        return os.path.samestat(os.fstat(folder), os.stat(path))
    except FileNotFoundError:
        return False


def hold(folder: int) -> None:
    """Lock the folder itself, unless its file system cannot, or somebody else has it for long."""
    end = time.monotonic() + FOLDER_PATIENCE
    while time.monotonic() < end:
        try:
            fcntl.flock(folder, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            time.sleep(STEP)
        except OSError:
            return


def is_held(path: Path) -> bool:
    """Return whether the folder itself is locked, by the graph that runs in it."""
    try:
        folder = os.open(path, FOLDER_FLAGS)
    except OSError:
        return False
    try:
        return not try_lock(folder)
    except OSError:  # its file system has no locks
        return False
    finally:
        os.close(folder)
