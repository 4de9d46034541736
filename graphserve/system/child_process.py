"""Our child processes: the file that each begins with, and that it ends with the process that started it.

Used by whoever starts one, and by the child itself: user code may hang in it, and the kernel ends it all the same.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

from graphserve.errors import ExitCode

FIRST_FILE = str(Path(__file__).parents[1] / "child.py")  # run as `python -P FIRST_FILE resolve|supervise|worker …`
_PR_SET_PDEATHSIG = 1  # prctl(2): it is the end of the thread that started us that counts


def die_with(parent: int) -> None:
    """Have the kernel end this process with SIGKILL when its parent ends; nothing on systems other than Linux.

    Args:
        parent: the pid that started us.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before we asked
        os._exit(ExitCode.FAILED)
