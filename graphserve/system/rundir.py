"""The run folder: what a running graph keeps on disk, under which names, and whether it is live.

    lock  control.sock  workers.sock  1/plan.json  n0/q.sock  n0/b1.sock  n0/<pid>.sock …

A reload makes the folder 2 for its Plan, and removes 1 with the last worker that was started from
it; no number comes again. Names are short (a socket's path has 107 bytes on Linux). A node's folder
is keyed by the node's id, which is never used for another node while the graph runs, so an old
caller cannot reach a wrong node. Used by every process.

A folder is known as ours by the marker in its lock. Only what has a name and a kind of ours is ever
removed, no link is followed, and all else stays.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import secrets
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from graphserve.errors import StartupError
from graphserve.system import os_errors

MAX_SOCKET_PATH = 107  # bytes, unix(7): sun_path holds 108 with the final NUL
PREFIX = "graphserve-"
UNFINISHED = ".graphserve-"
LOCK = "lock"
# the marker in the lock begins with it; another layout gets another number
FORMAT = "graphserve-run-folder 1"
MADE, KEPT = "made", "kept"  # in the marker: whether the folder was made by the graph
_MARKER = re.compile(
    rb"%s ([0-9a-f]{16}) (%s|%s)\n" % tuple(word.encode() for word in (FORMAT, MADE, KEPT))
)
# a link is not followed, a FIFO does not hold us up
_PLAIN = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# The longest that we bind below the run folder: a hundred thousand nodes in the life of a graph,
# pid_max, and the name that a socket has until it listens.
LONGEST_NAME = "/n99999/4194304.sock~"
# seconds that a start waits for who has locked its folder, such as a cleaner that looks at it
FOLDER_PATIENCE = 1.0
STEP = 0.01  # seconds between two tries meanwhile


def path_problem(folder: Path) -> str:
    """Return why sockets in this run folder would have paths that are too long, or an empty
    string.
    """
    length = len(os.fsencode(str(folder) + LONGEST_NAME))
    if length <= MAX_SOCKET_PATH:
        return ""
    return (
        f"the run folder {str(folder)!r} is too deep: its sockets would have paths of up to"
        f" {length} bytes, and Unix sockets allow {MAX_SOCKET_PATH}. Give a shorter one with"
        " --run-dir"
    )


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


class Taken(StartupError):
    """Raised when another graph has the run folder."""


class RunDir:
    """A run folder of ours: created, locked, and removed at the end.

    The folder itself is locked too, shared: systemd-tmpfiles leaves a folder alone that somebody
    has locked. What others remove all the same, `restore` makes anew.

    `token` is new in each run, and stands in the lock: by it the next graph here knows the
    processes that a killed one left. `before` is that of the run before, if it was killed.
    `foreign` has the names of what is in the folder and is not ours; it stays. `parent_made` is the
    folder above, if there was none; it stays too.

    Args:
        path: the folder to use; None makes a new one.

    Raises:
        StartupError: it is in use by another graph, is not ours, or cannot be made.
    """

    def __init__(self, path: str | None = None) -> None:
        self.made = False
        self.before = ""
        self.token = secrets.token_hex(8)
        self.foreign: list[str] = []
        self.parent_made: Path | None = None
        self._link: Path | None = None
        self._folder = -1
        self._lock = -1
        try:
            if path is None:
                self._make()
            else:
                self.path = Path(path).absolute()
                self._claim()
                self._leave_link()
        except OSError as exc:
            raise StartupError(
                f"the run folder {path or parent()} cannot be used: {os_errors.explain(exc)}"
            ) from exc

    def _make(self) -> None:
        # Under its own name only once it is locked: another graph that starts now would take it for
        # a stale one.
        self.path = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=parent()))
        self.made = True
        self._claim()
        self.path = self.path.rename(
            self.path.with_name(PREFIX + self.path.name.removeprefix(UNFINISHED))
        )

    def _claim(self) -> None:
        if problem := path_problem(self.path):
            self._remove_if_made()
            raise StartupError(problem)
        if not self.path.parent.is_dir():
            self.parent_made = self.path.parent
        _make_private(self.path.parent)
        while not self._take_lock():
            pass  # who held it has removed it just now
        try:
            os.fchmod(self._folder, 0o700)
            self.foreign = _clear(self._folder, _RUN)
            Marker(self.token, self.made).write(self._lock)
            _hold(self._folder)
        except OSError:
            self.remove()
            raise

    def restore(self) -> list[str]:
        """Make again what others have removed of the folder, its lock and the link to it, and
        return their names.

        Raises:
            Taken: another graph has the folder by now.
            OSError: it cannot be made.
        """
        restored = []
        if not _is_at(self.path, self._folder):
            self._folder_anew()
            restored.append(f"{self.path}/")
        if not _is_lock_of(self._folder, self._lock):
            self._lock_anew()
            restored.append(LOCK)
        if self._link is not None and not os.path.lexists(self._link):
            self._link.symlink_to(self.path)
            restored.append(str(self._link))
        return restored

    def _folder_anew(self) -> None:
        _make_private(self.path.parent)
        with contextlib.suppress(FileExistsError):
            self.path.mkdir(mode=0o700)
            self.made = True
        folder = os.open(self.path, _FOLDER)
        try:
            if _claim_problem(folder, self.path) or _is_held(self.path):
                raise Taken(
                    f"another graph has taken the run folder {self.path}, which was removed"
                )
            _hold(folder)
        except BaseException:
            os.close(folder)
            raise
        os.close(self._folder)
        self._folder = folder

    def _lock_anew(self) -> None:
        lock = os.open(LOCK, os.O_RDWR | os.O_CREAT | _PLAIN, 0o600, dir_fd=self._folder)
        if not _take(lock):
            os.close(lock)
            raise Taken(
                f"another graph has taken the run folder {self.path}, whose lock was removed"
            )
        os.close(self._lock)
        self._lock = lock
        Marker(self.token, self.made).write(self._lock)

    def _take_lock(self) -> bool:
        with contextlib.suppress(FileExistsError):
            self.path.mkdir(mode=0o700)
            self.made = True
        try:
            self._folder = os.open(self.path, _FOLDER)
        except FileNotFoundError:
            self.made = False
            return False
        except NotADirectoryError:
            raise StartupError(
                f"--run-dir {self.path}: there is something else than a folder"
            ) from None
        except OSError:
            self._remove_if_made()
            raise
        try:
            if self._lock_folder():
                return True
        except BaseException:
            os.close(self._folder)
            self._remove_if_made()
            raise
        os.close(self._folder)
        self.made = False
        return False

    def _lock_folder(self) -> bool:
        """Take the lock in the folder; False if the folder or the lock is gone."""
        # of a graph that runs, whose lock was removed
        if not _has_lock(self._folder) and _is_held(self.path):
            raise StartupError(
                f"a graph is running in {self.path}; stop it first, or give another --run-dir"
            )
        if problem := _claim_problem(self._folder, self.path):
            raise StartupError(problem)
        try:
            lock = os.open(LOCK, os.O_RDWR | os.O_CREAT | _PLAIN, 0o600, dir_fd=self._folder)
        except FileNotFoundError:
            return False
        try:
            if not _take(lock):
                raise StartupError(
                    f"a graph is running in {self.path}; stop it first, or give another --run-dir"
                )
            if not (_is_lock_of(self._folder, lock) and _is_at(self.path, self._folder)):
                os.close(lock)
                return False
            # now that nobody else may change it
            if problem := _claim_problem(self._folder, self.path):
                raise StartupError(problem)
            if (marker := Marker.read(lock)) is not None:
                self.before = marker.token
                self.made = self.made or marker.made
        except BaseException:
            os.close(lock)
            raise
        self._lock = lock
        return True

    def _leave_link(self) -> None:
        """Leave a link by which `running` finds a folder that is elsewhere."""
        with contextlib.suppress(OSError, StartupError):  # then it is found by --run-dir only
            link = _link_to(self.path)
            if _is_our_link(link):
                link.unlink()  # of a graph that was killed
            link.symlink_to(self.path)
            self._link = link

    def remove(self) -> list[str]:
        """Remove what is ours in the folder, and the folder if we made it.

        Returns:
            What is not ours and stays, and with it the folder and our marker.
        """
        left: list[str] = []
        with contextlib.suppress(OSError):
            if not _is_at(self.path, self._folder) or not self._has_no_other_lock():
                # somebody removed it, or another graph has it by now
                raise FileNotFoundError(self.path)
            left = _clear(self._folder, _RUN)
            if not left and self.made:  # in one step: who claims it now makes a new one
                self.path = self.path.rename(self.path.with_name(UNFINISHED + self.token))
                self._unlink_lock()
                self.path.rmdir()
            elif not left:
                self._unlink_lock()
        if self._link is not None:
            self._link.unlink(missing_ok=True)
        os.close(self._lock)
        os.close(self._folder)
        return left

    def _has_no_other_lock(self) -> bool:
        return not _has_lock(self._folder) or _is_lock_of(self._folder, self._lock)

    def _unlink_lock(self) -> None:
        with contextlib.suppress(FileNotFoundError):  # somebody was quicker
            os.unlink(LOCK, dir_fd=self._folder)

    def _remove_if_made(self) -> None:
        if self.made:
            with contextlib.suppress(OSError):
                self.path.rmdir()


def claim_problem(path: Path) -> str:
    """Return why no graph can have this folder as its run folder, or an empty string; change
    nothing.
    """
    try:
        folder = os.open(path, _FOLDER)
    except FileNotFoundError:
        return ""
    except NotADirectoryError:
        return f"--run-dir {path}: there is something else than a folder"
    except OSError as exc:
        return f"the run folder {path} cannot be used: {os_errors.explain(exc)}"
    try:
        if is_live(path):
            return f"a graph is running in {path}: stop it first, or give another --run-dir"
        return _claim_problem(folder, path)
    finally:
        os.close(folder)


def _claim_problem(folder: int, path: Path) -> str:
    """Return the same of a folder that is open: it is another user's, or holds things and no marker
    of ours.
    """
    if os.fstat(folder).st_uid != os.geteuid():
        return f"the run folder {path} belongs to another user: give another --run-dir"
    names = os.listdir(folder)
    if not names:
        return ""
    refused = (
        f"{path} is not empty and no run folder of graphserve: give --run-dir a folder of its own"
    )
    try:
        lock = os.open(LOCK, os.O_RDONLY | _PLAIN, dir_fd=folder)
    except FileNotFoundError:
        # What held the lock may just be removing the folder, whose other files go first.
        return refused if os.listdir(folder) else ""
    except OSError:  # a link, a socket, or a file that we may not read
        return refused
    try:
        state = os.fstat(lock)
        if not stat.S_ISREG(state.st_mode) or state.st_uid != os.geteuid() or state.st_nlink > 1:
            return refused
        # empty: it was killed before
        if Marker.read(lock) is not None or (state.st_size == 0 and names == [LOCK]):
            return ""
        return refused if _take(lock, fcntl.LOCK_SH) else ""  # held: its graph is about to write
    finally:
        os.close(lock)


def _make_private(folder: Path) -> None:
    """Make a folder and those above it, as far as there are none, for this user only, whatever the
    umask is.
    """
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


def _is_lock_of(folder: int, lock: int) -> bool:
    """Return whether what we took is still the folder's lock: one that was removed meanwhile locks
    nobody out.
    """
    try:
        return os.path.samestat(os.fstat(lock), os.stat(LOCK, dir_fd=folder, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _is_at(path: Path, folder: int) -> bool:
    """Return whether the folder that is open still has this path."""
    try:
        return os.path.samestat(os.fstat(folder), os.stat(path))
    except FileNotFoundError:
        return False


def _has_lock(folder: int) -> bool:
    return LOCK in os.listdir(folder)


def identity(path: str | Path) -> tuple[int, int] | None:
    """Return which file (device and inode) has this path; None if none has."""
    try:
        found = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _hold(folder: int) -> None:
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


def _is_held(path: Path) -> bool:
    """Return whether the folder itself is locked, by the graph that runs in it."""
    try:
        folder = os.open(path, _FOLDER)
    except OSError:
        return False
    try:
        return not _take(folder)
    except OSError:  # its file system has no locks
        return False
    finally:
        os.close(folder)


def _open_lock(folder: Path) -> int:
    """Open the lock of a folder for reading.

    Raises:
        OSError: there is none, or none that we could have made.
    """
    lock = os.open(folder / LOCK, os.O_RDONLY | _PLAIN)
    if not stat.S_ISREG(os.fstat(lock).st_mode):
        os.close(lock)
        raise OSError("this is no file")
    return lock


def token(folder: Path) -> str:
    """Return the token of the graph that runs in a folder, or was killed there; empty if there is
    none.
    """
    lock = _open_lock(folder)
    try:
        marker = Marker.read(lock)
        return marker.token if marker is not None else ""
    finally:
        os.close(lock)


def is_live(folder: Path) -> bool:
    """Return whether a graph runs in this folder: its lock has our marker, and is held."""
    try:
        lock = _open_lock(folder)
    except FileNotFoundError:
        return _is_held(folder)  # somebody removed it; the graph makes it anew
    except OSError:
        return False
    try:
        return Marker.read(lock) is not None and not _take(lock, fcntl.LOCK_SH)
    finally:
        os.close(lock)


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
    """Remove the run folders of ours whose graph was killed, and our links to such; nothing else is
    touched.
    """
    tokens, foreign = [], []
    for path in (*_candidates(PREFIX), *_candidates(UNFINISHED)):
        with contextlib.suppress(OSError):
            if path.is_symlink():
                if _is_our_link(path) and not is_live(path):
                    path.unlink()
                continue
            folder = os.open(path, _FOLDER | os.O_NOFOLLOW)
            try:
                lock = _stale_lock(folder)
                if lock is None:
                    continue
                try:
                    marker = Marker.read(lock)
                    assert marker is not None
                    tokens.append(marker.token)
                    left = _clear(folder, _RUN)
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
    lock = os.open(LOCK, os.O_RDONLY | _PLAIN, dir_fd=folder)
    state = os.fstat(lock)
    ours = (
        stat.S_ISREG(state.st_mode)
        and state.st_uid == os.geteuid()
        and Marker.read(lock) is not None
    )
    if ours and _take(lock) and _is_lock_of(folder, lock):
        return lock
    os.close(lock)
    return None


def running() -> list[Path]:
    """Return the run folders in which a graph of this user runs, also those that were chosen with
    `--run-dir`.
    """
    return sorted(
        {Path(os.path.realpath(folder)) for folder in _candidates(PREFIX) if is_live(folder)}
    )


def removed() -> set[Path]:
    """Return the run folders that somebody removed although their graphs run, which make them again
    within a second.

    The process that has locked such a folder has it open still, and the lock in it.
    """
    found: set[Path] = set()
    for pid in _lock_holders():
        with contextlib.suppress(OSError):
            place = Path(f"/proc/{pid}")
            if place.stat().st_uid == os.geteuid():
                found |= _removed_folders(place / "fd")
    return found


def ours(folders: set[Path]) -> set[Path]:
    """Return those of these folders that `running` looks at, though they may be gone."""
    try:
        place = Path(os.path.realpath(parent()))
    except StartupError:
        return set()
    return {
        folder
        for folder in folders
        if (folder.parent == place and folder.name.startswith(PREFIX))
        or _is_our_link(_link_to(folder))
    }


def _lock_holders() -> set[int]:
    """Return the processes that hold a lock of flock(2)."""
    with contextlib.suppress(OSError):
        lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
        return {int(fields[4]) for fields in lines if fields[1] == "FLOCK"}
    return set()


def _removed_folders(descriptors: Path) -> set[Path]:
    gone = " (deleted)"  # proc(5)
    names = set()
    for entry in descriptors.iterdir():
        with contextlib.suppress(OSError):
            names.add(os.readlink(entry))
    locks = [
        name.removesuffix(f"/{LOCK}{gone}") for name in names if name.endswith(f"/{LOCK}{gone}")
    ]
    return {Path(folder) for folder in locks if folder + gone in names}


def _candidates(prefix: str) -> Iterator[Path]:
    """Yield what may be run folders in the usual place, and links to those elsewhere, by name and
    owner.
    """
    try:
        place = parent()
    except StartupError:
        return
    for folder in sorted(place.glob(prefix + "*")):
        with contextlib.suppress(OSError):
            if folder.lstat().st_uid == os.geteuid() and (folder.is_symlink() or folder.is_dir()):
                yield folder


def _link_to(folder: Path) -> Path:
    """The link that leads to a run folder elsewhere; its name is made from where it leads, so it
    proves itself ours.
    """
    return parent() / f"{PREFIX}{hashlib.blake2b(os.fsencode(folder), digest_size=6).hexdigest()}"


def _is_our_link(link: Path) -> bool:
    try:
        return _link_to(Path(os.readlink(link))).name == link.name
    except OSError:  # it is no link
        return False


# What is in a run folder.
_SOCKET, _FILE = stat.S_ISSOCK, stat.S_ISREG
# By name what we make, and what kind of thing that is; the table of a folder is the same for what
# is in it. (The name of a socket ends in ~ until it listens.)
_Table: TypeAlias = "dict[str, Callable[[int], bool] | _Table]"
_NODE: _Table = {r"(q|b\d+|\d+)\.sock~?": _SOCKET, r"b\d+\.lease": _FILE}
_REVISION: _Table = {r"plan\.json~?": _FILE}
_RUN: _Table = {r"(control|workers)\.sock~?": _SOCKET, r"\d+": _REVISION, r"n\d+": _NODE}


def _clear(folder: int, table: _Table) -> list[str]:
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
            inner = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
            try:
                left = [f"{name}/{each}" for each in _clear(inner, kind)]
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
        folder = os.open(run, _FOLDER)
        try:
            _remove(folder, name, _RUN)
        finally:
            os.close(folder)


def queue_socket(run: Path, node: str) -> str:
    """Return the path of a node's shared socket."""
    return str(run / node / "q.sock")


def batch_sockets(run: Path, node: str, batched: Mapping[str, int]) -> dict[str, str]:
    """Return the paths of the shared sockets of a node's batched APIs, by API name.

    Args:
        run: the run folder.
        node: the id of the node.
        batched: the number of each batched API among all (`NodePlan.batched`).
    """
    return {name: str(run / node / f"b{index}.sock") for name, index in batched.items()}


def worker_socket(run: Path, node: str, pid: int) -> str:
    """Return the path of one worker's own socket."""
    return str(run / node / f"{pid}.sock")


def workers_socket(run: Path) -> str:
    """Return the path of the supervisor's socket that workers connect to."""
    return str(run / "workers.sock")


def control_socket(run: Path) -> str:
    """Return the path of the supervisor's socket that operators speak HTTP to."""
    return str(run / "control.sock")


def plan_file(run: Path, revision: int) -> Path:
    """Return the path of a Plan; `revision` counts the Plans of this graph, from 1."""
    return run / str(revision) / "plan.json"


def parent() -> Path:
    """Return where new run folders are made: `$XDG_RUNTIME_DIR` if it can be used, or the temporary
    folder.

    Raises:
        StartupError: neither can be.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.path.isdir(runtime) and os.access(runtime, os.W_OK | os.X_OK):
        return Path(runtime)
    try:
        return Path(tempfile.gettempdir())
    except OSError:  # it tries to write a file
        raise StartupError(
            "there is no temporary folder that can be written to: set XDG_RUNTIME_DIR or TMPDIR, or"
            " give --run-dir"
        ) from None
