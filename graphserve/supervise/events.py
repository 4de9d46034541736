"""What the supervisor tells whoever started it: states of nodes and lines of output.

Runs in the supervisor.
"""

from __future__ import annotations

import time
from dataclasses import field
from typing import Literal, Protocol

from graphserve.errors import GraphError, StartupError
from graphserve.system.frozen import dataclass

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
OutputName = Literal["stdout", "stderr", "log"]
State = Literal["starting", "ready", "scaling", "draining", "failed", "stopped"]


@dataclass(frozen=True)
class NodeState:
    """The state of one node, sent whenever it changes.

    Args:
        name: the node.
        state: where it stands.
        ready: workers that are ready.
        workers: workers that there should be.
        seconds: since the graph began to start.
        warms_up: whether it starts, and workers of it warm up.
    """

    name: str
    state: State
    ready: int
    workers: int
    seconds: float
    warms_up: bool = False


@dataclass(frozen=True)
class LogRecord:
    """One record for the terminal: a line that a worker printed, a record of its log, or our own
    word.

    Args:
        time: seconds since the epoch.
        level: `debug`, `info`, `warning`, `error` or `critical`.
        message: the text, without its line end.
        node: the node it comes from; None for the supervisor itself.
        slot: the worker's slot.
        pid: the worker's process.
        stream: `stdout` or `stderr` for what user code printed, `log` for log records.
        traceback: a formatted traceback, for records that carry one.
        fields: what else the record knows (`request_id`, …), JSON values.
    """

    time: float
    level: str
    message: str
    node: str | None = None
    slot: int | None = None
    pid: int | None = None
    stream: OutputName = "log"
    traceback: str = ""
    fields: dict[str, object] = field(default_factory=dict)


class Observer(Protocol):
    """Who watches a graph run. Called on the supervisor's event loop: it must not block."""

    def node(self, state: NodeState) -> None:
        """Hear that a node changed its state."""

    def log(self, record: LogRecord) -> None:
        """Hear of a record to show."""

    def serving(self, url: str) -> None:
        """Hear that the graph is ready and answers at `url`."""


def node_state(state: str, ready: int, workers: int, silent: int = 0) -> str:
    """Return the state of a node: `degraded` if it is ready and lacks workers,
    or some of them do not report.
    """
    return "degraded" if state == "ready" and (ready < workers or silent) else state


def record_of(state: NodeState) -> LogRecord:
    """Return a change of a node's state as a record of the supervisor's."""
    workers = "worker" if state.workers == 1 else "workers"
    word = node_state(state.state, state.ready, state.workers)
    shown = "warming up" if state.warms_up else word
    message = (
        f"{state.name} {shown}  {state.ready}/{state.workers} {workers}  {state.seconds:.2f} s"
    )
    fields = {
        "state": word,
        "ready": state.ready,
        "workers": state.workers,
        "seconds": round(state.seconds, 3),
    }
    level = "error" if state.state == "failed" else "info"
    return LogRecord(time.time(), level, message, node=state.name, fields=fields)


def log_of(error: BaseException) -> str:
    """Return the user's own traceback or last output, if the error has any."""
    return error.log if isinstance(error, (StartupError, GraphError)) else ""
