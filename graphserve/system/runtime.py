"""The runtime directory: where run folders are made, and looked for. Used by every process that starts or finds one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from graphserve.errors import StartupError


def parent() -> Path:
    """Where new run folders are made: `$XDG_RUNTIME_DIR` if it can be used, or the temporary folder.

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
            "there is no temporary folder that can be written to: set XDG_RUNTIME_DIR or TMPDIR, or give --run-dir"
        ) from None
