"""The parent process: sockets, start, stop and respawn of workers, on circus. Never imports user code."""

import graphserve.supervise.lean  # noqa: F401  (before anything of circus)
from graphserve.supervise.events import LogRecord as LogRecord, NodeState as NodeState, Observer as Observer
from graphserve.supervise.supervisor import run as run
