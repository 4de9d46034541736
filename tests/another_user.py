"""Another user of this machine, as whom a test runs commands."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

NOBODY = 65534


def as_user(*more: str, user: int = NOBODY) -> list[str]:
    """The command that becomes the user and then is another one."""
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *more]


def python() -> list[str]:
    """A Python that another user may run, with our packages; skips the test where there is none."""
    if found := _python():
        return found
    pytest.skip("this user may not become another, or no other may run this Python")


@cache
def _python() -> list[str]:
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    paths = [path for path in sys.path if "site-packages" in path] + [
        str(Path(__file__).parent.parent)
    ]
    for found in (sys.executable, shutil.which(version, path="/usr/bin:/usr/local/bin")):
        if not found:
            continue
        words = ["env", f"PYTHONPATH={os.pathsep.join(paths)}", found]
        done = subprocess.run(
            [*as_user(), *words, "-c", "import graphserve.cli, uvloop"], capture_output=True
        )
        if done.returncode == 0:
            return words
    return []
