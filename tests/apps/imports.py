"""A service whose module takes as long to import as the folder `$FLAGS` says, and may fail then."""

from __future__ import annotations

import os
import time
from pathlib import Path

from calling import Answering  # beside this file, whose folder it is served from

from graphserve import service

FLAGS = Path(os.environ["FLAGS"])

while (FLAGS / "slow").exists():
    time.sleep(0.01)
if (FLAGS / "fails").exists():
    raise OSError("the disk is full")


@service(name="front-door")
class Entry(Answering):
    """The only node; its name is not that of its class."""
