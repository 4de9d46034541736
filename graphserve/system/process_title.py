"""The name of a process as `ps` and `top` show it. Used by the processes that a graph starts.

Python has no call for it. The kernel shows the bytes that the process was started with, where they
are in its memory (proc(5), `cmdline`), so they are written over. `sys.argv` and `sys.orig_argv` are
copies and stay.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from pathlib import Path

_PR_SET_NAME = 15  # prctl(2)
COMM_BYTES = 15
# where they are in /proc/<pid>/stat, counted from 0 (proc(5))
_ARG_START = 47
_ARG_END = 48


def name_process(name: str, *words: str) -> None:
    """Name this process; nothing happens where the system does not let us.

    Args:
        name: `Recognizer[2]`. `ps` shows `graphserve: Recognizer[2]`; `top`, and what shows 15
            bytes, the name alone.
        words: what follows it in the list of processes.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_NAME, _short(name).encode(), 0, 0, 0)
    with contextlib.suppress(OSError, ValueError, IndexError):
        _write(name, words)


def _short(name: str) -> str:
    """Shorten a name to as many bytes as the kernel keeps; the slot at its end stays."""
    head, bracket, slot = name.rpartition("[")
    if not bracket:
        return name[:COMM_BYTES]
    return f"{head[: COMM_BYTES - len(slot) - 1]}[{slot}"


def _write(name: str, words: tuple[str, ...]) -> None:
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    # pid and name are cut off
    start, end = (int(fields[index - 2]) for index in (_ARG_START, _ARG_END))
    # a wrong address is an OSError here, and no crash
    memory = os.open("/proc/self/mem", os.O_RDWR | os.O_CLOEXEC)
    try:
        if (
            end <= start
            or os.pread(memory, end - start, start) != Path("/proc/self/cmdline").read_bytes()
        ):
            return
        os.pwrite(memory, _fit(name, words, end - start), start)
    finally:
        os.close(memory)


def _fit(name: str, words: tuple[str, ...], room: int) -> bytes:
    """Return what is written: each part ends with a NUL, and NULs fill the rest.

    A name that is too long is cut.
    """
    rest = b"".join(word.encode() + b"\0" for word in words)
    shown = f"graphserve: {name}".encode()[: max(0, room - len(rest) - 1)]
    return (shown + b"\0" + rest)[:room].ljust(room, b"\0")
