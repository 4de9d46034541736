"""Errors of the operating system, with what to do: descriptors, processes, space, permission.

Any process.
"""

from __future__ import annotations

import errno
import resource

NO_THREAD = "can't start new thread"  # what Python says where the kernel says EAGAIN


def explain(exc: OSError | RuntimeError) -> str:
    """Return what the kernel refused and what to do about it, in one line.

    Args:
        exc: what was raised: an OSError, or the RuntimeError of a thread that could not start.
    """
    if not isinstance(exc, OSError):
        return _no_more_processes() if str(exc) == NO_THREAD else str(exc)
    where = f" ({exc.filename})" if exc.filename else ""
    match exc.errno:
        case errno.EMFILE:
            limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            return (
                f"no file descriptor is left, the limit is {limit}: raise it (`ulimit -n`;"
                " LimitNOFILE= of a systemd unit), or run fewer workers"
            )
        case errno.ENFILE:
            return "this machine has no file descriptor left: raise `sysctl fs.file-max`"
        case errno.ENOSPC | errno.EDQUOT:
            return (
                f"no space or no inode is left on the file system{where}: free some, or give a"
                " --run-dir elsewhere"
            )
        case errno.EAGAIN:
            return _no_more_processes()
        case errno.ENOMEM:
            return (
                "no memory is left for a further process: run fewer workers, or give the machine"
                " more"
            )
        case errno.EROFS:
            return f"the file system is read-only{where}: give a --run-dir elsewhere"
        case errno.EEXIST | errno.ENOTDIR:
            return f"there is something else than a folder{where}"
        case errno.EACCES | errno.EPERM:
            return (
                f"this user may not do that{where}: give it the permission, or a --run-dir"
                " elsewhere"
            )
        case _:
            return f"{exc.strerror or exc}{where}"


def _no_more_processes() -> str:
    limit = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    known = "" if limit == resource.RLIM_INFINITY else f" (this user may have {limit})"
    return (
        f"no further process or thread may be started{known}: raise the limit (`ulimit -u`;"
        " TasksMax= of a systemd unit; the pids of a container), or run fewer workers"
    )


def is_refusal(exc: BaseException) -> bool:
    """Return whether the kernel refused something, which `explain` puts into words; else it is a
    mistake of ours.
    """
    return isinstance(exc, OSError) or (isinstance(exc, RuntimeError) and str(exc) == NO_THREAD)
