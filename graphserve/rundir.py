"""The run folder: what a running graph keeps on disk, under which names, and whether it is live.

    lock  control.sock  workers.sock  1/plan.json  n0/q.sock  n0/b1.sock  n0/<pid>.sock …

A reload makes the folder 2 for its Plan, and removes 1 with the last worker that was started from it; no number comes
again. Names are short (a socket's path has 107 bytes on Linux). A node's folder is keyed by the node's id, which is
never used for another node while the graph runs, so an old caller cannot reach a wrong node. Used by every process.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from graphserve import shortage
from graphserve.errors import StartupError
from graphserve.plan import NodePlan
from graphserve.runtime import parent

MAX_SOCKET_PATH = 107  # bytes, unix(7): sun_path holds 108 with the final NUL
PREFIX = "graphserve-"
MADE = "made"  # in the lock: the folder was not there before
UNFINISHED = ".graphserve-"
FORGOTTEN = 60.0  # seconds after which a folder that never got its name is that of a start which was killed
# The longest that we bind below the run folder: a hundred thousand nodes in the life of a graph, pid_max, and the name
# that a socket has until it listens.
LONGEST_NAME = "/n99999/4194304.sock~"


def path_problem(folder: Path) -> str:
    """Why sockets in this run folder would have paths that are too long, or an empty string."""
    length = len(os.fsencode(str(folder) + LONGEST_NAME))
    if length <= MAX_SOCKET_PATH:
        return ""
    return (
        f"the run folder {str(folder)!r} is too deep: its sockets would have paths of up to {length} bytes, and Unix "
        f"sockets allow {MAX_SOCKET_PATH}. Give a shorter one with --run-dir"
    )


class RunDir:
    """A run folder of ours: created, locked, and removed at the end.

    `token` is new in each run, and stands in the lock: by it the next graph here knows the processes that a killed one
    left. `before` is that of the run before, if it was killed.

    Args:
        path: the folder to use; None makes a new one.

    Raises:
        StartupError: it is in use by another graph, is not ours, or cannot be made.
    """

    def __init__(self, path: str | None = None) -> None:
        self.made, self.before = False, ""
        self.token = secrets.token_hex(8)
        self._link: Path | None = None
        try:
            if path is None:
                self._make()
            else:
                self.path = Path(path).absolute()
                self._claim()
                self._leave_link()
        except OSError as exc:
            raise StartupError(f"the run folder {path or parent()} cannot be used: {shortage.words(exc)}") from exc

    def _make(self) -> None:
        # Under its own name only once it is locked: another graph that starts now would take it for a stale one.
        self.path, self.made = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=parent())), True
        self._claim()
        self.path = self.path.rename(self.path.with_name(PREFIX + self.path.name.removeprefix(UNFINISHED)))

    def _claim(self) -> None:
        if problem := path_problem(self.path):
            self._remove_if_made()
            raise StartupError(problem)
        _make_private(self.path.parent)
        while not self._take_lock():
            pass  # who held it has removed it just now
        try:
            if stat.S_IMODE(self.path.stat().st_mode) != 0o700:
                self.path.chmod(0o700)
            self._clear()
            self.before, made = _read(self.path)
            self.made = self.made or made
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, f"{self.token} {MADE if self.made else ''}\n".encode(), 0)
        except OSError:
            self.remove()
            raise

    def _take_lock(self) -> bool:
        with contextlib.suppress(FileExistsError):
            self.path.mkdir(mode=0o700)
            self.made = True
        try:
            self._check()
            lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            self.made = False
            return False
        except OSError:
            self._remove_if_made()
            raise
        if not _take(lock):
            os.close(lock)
            raise StartupError(f"a graph is running in {self.path}; stop it first, or give another --run-dir")
        self._lock = lock
        if _is_lock_of(self.path, lock):
            return True
        os.close(lock)
        self.made = False
        return False

    def _check(self) -> None:
        if self.path.stat().st_uid != os.geteuid():
            raise StartupError(f"the run folder {self.path} belongs to another user: give another --run-dir")
        names = os.listdir(self.path)
        if names and "lock" not in names:
            raise StartupError(f"{self.path} is not empty and no run folder: give --run-dir a folder of its own")

    def _clear(self) -> None:
        for left in self.path.iterdir():  # of a graph that was killed
            if left.name != "lock":
                shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()

    def _leave_link(self) -> None:
        """Have `running` find a folder that is elsewhere."""
        name = f"{PREFIX}{hashlib.blake2b(os.fsencode(self.path), digest_size=6).hexdigest()}"
        with contextlib.suppress(OSError, StartupError):  # then it is found by --run-dir only
            link = parent() / name
            if link.is_symlink():
                link.unlink()  # of a graph that was killed
            link.symlink_to(self.path)
            self._link = link

    def remove(self) -> None:
        """Remove what is in the folder, and the folder if we made it; what cannot be removed stays."""
        with contextlib.suppress(OSError):
            if self.made:  # in one step: who claims it now makes a new one
                self.path = self.path.rename(self.path.with_name(UNFINISHED + self.token))
                shutil.rmtree(self.path)
            else:
                self._clear()
                (self.path / "lock").unlink()
        if self._link is not None:
            self._link.unlink(missing_ok=True)
        os.close(self._lock)

    def _remove_if_made(self) -> None:
        if self.made:
            with contextlib.suppress(OSError):
                self.path.rmdir()


def _make_private(folder: Path) -> None:
    """Make a folder and those above it, as far as there are none, for this user only, whatever the umask is."""
    before = os.umask(0o077)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    finally:
        os.umask(before)


def _take(descriptor: int, how: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_lock_of(folder: Path, descriptor: int) -> bool:
    """Whether what we took is still the folder's lock: one that was removed meanwhile locks nobody out."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(folder / "lock"))
    except FileNotFoundError:
        return False


def token(folder: Path) -> str:
    """The token of the graph that runs in a folder, or of the one that was killed there."""
    return _read(folder)[0]


def _read(folder: Path) -> tuple[str, bool]:
    """What stands in the lock: the token, and whether the graph made the folder; nothing if it had not come so far."""
    found, _, made = (folder / "lock").read_text("ascii", "replace").partition(" ")
    return found, made.strip() == MADE


def is_live(folder: Path) -> bool:
    """Whether a graph runs in this folder: its lock is held."""
    try:
        descriptor = os.open(folder / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not _take(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def remove_stale() -> list[str]:
    """Remove the run folders of ours whose graph was killed, and the links to such.

    Returns:
        The tokens of those graphs.
    """
    tokens = []
    for folder in _ours(PREFIX):
        with contextlib.suppress(OSError):
            if not folder.is_symlink():
                folder.rmdir()  # killed at the very end of its stop: even the lock was gone
            elif not is_live(folder):
                folder.unlink()
            continue
        tokens += _remove_if_stale(folder)
    for folder in _ours(UNFINISHED):  # killed before it had its name
        with contextlib.suppress(OSError):
            if folder.stat().st_mtime < time.time() - FORGOTTEN and not is_live(folder):
                shutil.rmtree(folder)
    return tokens


def _remove_if_stale(folder: Path) -> list[str]:
    try:
        descriptor = os.open(folder / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        if not _take(descriptor) or not _is_lock_of(folder, descriptor):
            return []
        found = token(folder)
        shutil.rmtree(folder, ignore_errors=True)  # while we hold it, nobody claims it
        return [found]
    finally:
        os.close(descriptor)


def running() -> list[Path]:
    """The run folders in which a graph of this user runs, also those that were chosen with `--run-dir`."""
    return sorted({Path(os.path.realpath(folder)) for folder in _ours(PREFIX) if is_live(folder)})


def _ours(prefix: str) -> Iterator[Path]:
    """What is in the usual place: run folders, and links to those that are elsewhere."""
    try:
        place = parent()
    except StartupError:
        return
    for folder in sorted(place.glob(prefix + "*")):
        with contextlib.suppress(OSError):
            if folder.lstat().st_uid == os.geteuid() and (folder.is_symlink() or folder.is_dir()):
                yield folder


def queue_socket(run: Path, node: NodePlan) -> str:
    """The path of a node's shared socket."""
    return str(run / node.id / "q.sock")


def batch_sockets(run: Path, node: NodePlan) -> dict[str, str]:
    """The paths of the shared sockets of a node's batched APIs, by API name."""
    return {
        api.name: str(run / node.id / f"b{index}.sock") for index, api in enumerate(node.apis) if api.batch is not None
    }


def worker_socket(run: Path, node: NodePlan, pid: int) -> str:
    """The path of one worker's own socket."""
    return str(run / node.id / f"{pid}.sock")


def workers_socket(run: Path) -> str:
    """The path of the supervisor's socket that workers connect to."""
    return str(run / "workers.sock")


def control_socket(run: Path) -> str:
    """The path of the supervisor's socket that operators speak HTTP to."""
    return str(run / "control.sock")


def plan_file(run: Path, version: int) -> Path:
    """The path of a Plan; `version` counts the reloads, from 1."""
    return run / str(version) / "plan.json"
