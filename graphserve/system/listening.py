"""Why a graph cannot listen at its address: the words of `check` before a start, and of the start.

Any process of ours.
"""

from __future__ import annotations

import errno
import os
import stat


def explain(exc: OSError, host: str, port: int, uds: str | None) -> str:
    """Return why an address could not be bound, and what to do about it.

    Args:
        exc: what was raised.
        host: the address, if there is no `uds`.
        port: the port.
        uds: the path of a Unix socket.
    """
    where = uds or f"{host}:{port}"
    match exc.errno:
        case errno.EADDRINUSE:
            other = "--uds" if uds else "--port (0 picks a free one)"
            return f"{where} is in use by another process; stop it, or choose another {other}"
        case errno.EACCES | errno.EPERM if uds:
            return f"{where}: permission denied; this user may not write in that folder"
        case errno.EACCES | errno.EPERM:
            return f"{where}: permission denied; ports below 1024 need privileges"
        case errno.EADDRNOTAVAIL:
            return f"{host} is no address of this machine; choose another --host"
        case errno.ENOENT if uds:
            return f"--uds {uds}: there is no folder {os.path.dirname(uds)}"
        case _:
            return f"{where} cannot be bound: {exc.strerror or exc}"


def explain_unknown_host(exc: Exception, host: str) -> str:
    """Return why a host has no address, and what to do about it."""
    return f"host {host!r} is not known here ({exc}); choose another --host"


def obstacle(uds: str) -> str:
    """Return what keeps a Unix socket from being made at this path;
    empty if nothing is there, or a socket.

    Raises:
        OSError: the path cannot be looked at.
    """
    try:
        mode = os.lstat(uds).st_mode
    except FileNotFoundError:
        return ""
    if stat.S_ISLNK(mode):
        words = "there is a link, and links are not followed: remove it, or give its end"
        return f"--uds {uds}: {words}"
    if not stat.S_ISSOCK(mode):
        return f"--uds {uds}: there is a file of that name that is no socket"
    return ""
