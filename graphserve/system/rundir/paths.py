"""The names in a run folder, and where a new run folder is made. Used in every process.

Names are short: a socket's path has 107 bytes on Linux.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from graphserve.errors import StartupError

MAX_SOCKET_PATH = 107  # bytes, unix(7): sun_path holds 108 with the final NUL
PREFIX = "graphserve-"
UNFINISHED = ".graphserve-"  # before the folder is locked, and while it is removed
LOCK = "lock"
# The longest that we bind below the run folder: a hundred thousand nodes in the life of a graph,
# pid_max, and the name that a socket has until it listens.
LONGEST_NAME = "/n99999/4194304.sock~"


def parent() -> Path:
    """Return where new run folders are made: `$XDG_RUNTIME_DIR` if it can be used, or the temporary
    folder.

    Raises:
        StartupError: neither can be.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.path.isdir(runtime) and os.access(runtime, os.W_OK | os.X_OK):
        return Path(runtime)
    import tempfile  # it brings much along, and workers have no use for it

    try:
        return Path(tempfile.gettempdir())
    except OSError:  # it tries to write a file
        raise StartupError(
            "there is no temporary folder that can be written to: set XDG_RUNTIME_DIR or TMPDIR, or"
            " give --run-dir"
        ) from None


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


def control_socket(run: Path) -> str:
    """Return the path of the supervisor's socket that operators speak HTTP to."""
    return str(run / "control.sock")


def workers_socket(run: Path) -> str:
    """Return the path of the supervisor's socket that workers connect to."""
    return str(run / "workers.sock")


def plan_file(run: Path, revision: int) -> Path:
    """Return the path of a Plan; `revision` counts the Plans of this graph, from 1."""
    return run / str(revision) / "plan.json"


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


def batch_lease_file(sock: str) -> str:
    """Return the path of the file that is locked by whoever collects a batch; it lies beside the
    API's shared socket.
    """
    return sock.removesuffix(".sock") + ".lease"


def worker_socket(run: Path, node: str, pid: int) -> str:
    """Return the path of one worker's own socket."""
    return str(run / node / f"{pid}.sock")


def received_files(socket: str) -> str:
    """Return the path of the folder with the files that a worker was sent, by that of its own
    socket.
    """
    return socket.removesuffix(".sock") + ".files"


def file_identity(path: str | Path) -> tuple[int, int] | None:
    """Return which file (device and inode) has this path; None if none has."""
    try:
        found = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    return found.st_dev, found.st_ino
