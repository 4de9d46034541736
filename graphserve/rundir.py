"""The run folder: what a running graph keeps on disk, under which names, and whether it is live.

    lock  control.sock  1/plan.json  1/workers.sock  1/n0/q.sock  1/n0/b1.sock  1/n0/<pid>.sock …

A reload makes the folder 2 beside 1, and removes 1 when the last call in it is answered; no number comes again.
Names are short (a socket's path has 107 bytes on Linux) and keyed by the node's id, which is never used for another
node while the graph runs. Used by every process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from graphserve.errors import StartupError
from graphserve.plan import NodePlan

MAX_SOCKET_PATH = 107  # bytes, unix(7): sun_path holds 108 with the final NUL
PREFIX = "graphserve-"
UNFINISHED = ".graphserve-"
# The longest that we bind below the run folder: ten thousand reloads, a thousand nodes, pid_max, and the name that a
# socket has until it listens.
LONGEST_NAME = "/9999/n999/4194304.sock~"


def parent() -> Path:
    """Where new run folders are made: `$XDG_RUNTIME_DIR` if it can be used, or the temporary folder."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.path.isdir(runtime) and os.access(runtime, os.W_OK | os.X_OK):
        return Path(runtime)
    return Path(tempfile.gettempdir())


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

    Args:
        path: the folder to use; None makes a new one.

    Raises:
        StartupError: it is in use by another graph, is not ours, or cannot be made.
    """

    def __init__(self, path: str | None = None) -> None:
        self.made = True
        try:
            if path is None:
                self._make()
            else:
                self.path = Path(path).absolute()
                self.made = not self.path.exists()
                self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._claim()
        except OSError as exc:
            raise StartupError(f"the run folder {path or parent()} cannot be used: {exc.strerror or exc}") from exc

    def _make(self) -> None:
        # Under its own name only once it is locked: another graph that starts now would take it for a stale one.
        self.path = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=parent()))
        self._claim()
        self.path = self.path.rename(self.path.with_name(PREFIX + self.path.name.removeprefix(UNFINISHED)))

    def _claim(self) -> None:
        if problem := path_problem(self.path):
            self._remove_if_made()
            raise StartupError(problem)
        held = self.path.stat()
        if held.st_uid != os.geteuid():
            raise StartupError(f"the run folder {self.path} belongs to another user")
        if not self.made and any(self.path.iterdir()) and not (self.path / "lock").exists():
            raise StartupError(f"{self.path} is not empty and no run folder: give --run-dir a folder of its own")
        self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise StartupError(f"a graph is running in {self.path}; stop it first, or give another --run-dir") from None
        if stat.S_IMODE(held.st_mode) != 0o700:
            self.path.chmod(0o700)
        for left in self.path.iterdir():  # of a graph that was killed
            if left.name != "lock":
                shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()

    def write(self, name: str, text: str) -> None:
        """Write a file of mode 0600, whole or not at all."""
        temporary = self.path / f".{name}"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w") as file:
            file.write(text)
        temporary.rename(self.path / name)

    def remove(self) -> None:
        """Remove what is in the folder, and the folder if we made it."""
        for left in list(self.path.iterdir()) if self.path.exists() else []:
            if left.name != "lock":
                shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)
        (self.path / "lock").unlink(missing_ok=True)
        self._remove_if_made()
        os.close(self._lock)

    def _remove_if_made(self) -> None:
        if self.made:
            with contextlib.suppress(OSError):
                self.path.rmdir()


def is_live(folder: Path) -> bool:
    """Whether a graph runs in this folder: its lock is held."""
    try:
        descriptor = os.open(folder / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def remove_stale() -> None:
    """Remove the run folders of ours whose graph was killed."""
    for folder in _ours():
        if (folder / "lock").exists() and not is_live(folder):
            shutil.rmtree(folder, ignore_errors=True)


def running() -> list[Path]:
    """The run folders in the usual place in which a graph of this user runs."""
    return [folder for folder in _ours() if is_live(folder)]


def _ours() -> Iterator[Path]:
    for folder in sorted(parent().glob(PREFIX + "*")):
        with contextlib.suppress(OSError):
            if folder.is_dir() and not folder.is_symlink() and folder.stat().st_uid == os.geteuid():
                yield folder


def queue_socket(run: Path, node: NodePlan) -> str:
    """The path of a node's shared socket."""
    return str(run / node.id / "q.sock")


def batch_sockets(run: Path, node: NodePlan) -> dict[str, str]:
    """The paths of the shared sockets of a node's batched APIs, by API name."""
    return {
        api.name: str(run / node.id / f"b{index}.sock") for index, api in enumerate(node.apis) if api.batch is not None
    }


def turn_file(batch_socket: str) -> str:
    """The path of the file whose lock says which worker of the node collects a batch from this socket."""
    return batch_socket.removesuffix(".sock") + ".turn"


def worker_socket(run: Path, node: NodePlan, pid: int) -> str:
    """The path of one worker's own socket."""
    return str(run / node.id / f"{pid}.sock")


def workers_socket(run: Path) -> str:
    """The path of the supervisor's socket that workers connect to."""
    return str(run / "workers.sock")
