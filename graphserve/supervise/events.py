"""What the supervisor tells whoever started it: states of nodes, lines of output, and what happened
to the graph.

Runs in the supervisor.

Whatever the supervisor says in words of its own is an event of some `EventKind`: `happened` makes
the record of it, which is a line of the log and an event that `supervise/event_ring.py` keeps.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Mapping
from dataclasses import field
from typing import Literal, Protocol

from graphserve.errors import GraphError, StartupError
from graphserve.system.frozen import dataclass

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
# the level of an event that is no line of the log: changes of a node's state show it there
SHOWN_OTHERWISE = "debug"
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


class EventKind(enum.Enum):
    """What happened to a graph; docs/reference/events.md has a line for each."""

    # the graph
    GRAPH_STARTING = "graph-starting"  # its modules are about to be imported
    GRAPH_READY = "graph-ready"  # its start is over: it serves
    START_FAILED = "start-failed"
    GRAPH_STOPPING = "graph-stopping"  # it answers what it accepted
    GRAPH_KILLED = "graph-killed"  # a second signal did not wait for that
    # workers
    WORKER_STARTED = "worker-started"  # a process
    WORKER_READY = "worker-ready"  # with what its start took
    WORKER_ENDED = "worker-ended"  # as it was told to
    WORKER_DIED = "worker-died"  # with its last words; it is replaced
    WORKER_KILLED = "worker-killed"  # it had not ended in time
    WORKER_SILENT = "worker-silent"  # its event loop does not run
    WORKER_ANSWERS = "worker-answers"  # it was silent, and is no more
    WORKER_REPLACED = "worker-replaced"  # it has had its time: calls, or memory
    REPLACEMENT_FAILED = "replacement-failed"
    WORKER_UNHEARD = "worker-unheard"  # it cannot listen on its own socket
    NO_PROCESS = "no-process"  # the machine gives us none
    NODE_FAILED = "node-failed"  # its workers die early: calls are refused
    NODE_READY = "node-ready"  # it had failed, and takes calls again
    # operations
    RELOAD_BEGUN = "reload-begun"
    RELOAD_DONE = "reload-done"
    RELOAD_FAILED = "reload-failed"
    SCALE_BEGUN = "scale-begun"
    SCALE_DONE = "scale-done"
    SCALE_FAILED = "scale-failed"
    RESTART_BEGUN = "restart-begun"
    RESTART_DONE = "restart-done"
    RESTART_FAILED = "restart-failed"
    ROLLOUT_STEP = "rollout-step"  # a worker is replaced, a node is started
    CODE_CHANGED = "code-changed"  # a file that --reload watches
    WATCH_FAILED = "watch-failed"
    # load
    SHEDDING_BEGUN = "shedding-begun"  # calls are refused, since there are too many
    SHEDDING_ENDED = "shedding-ended"
    # calls that kill
    CALLS_AT_DEATH = "calls-at-death"  # any of them may have ended the worker
    DEATHS_IN_A_ROW = "deaths-in-a-row"  # of workers that executed the same API
    CALL_QUARANTINED = "call-quarantined"
    # the public port
    FALLBACK_BEGUN = "fallback-begun"  # a fallback server is there, where calls wait
    FALLBACK_ENDED = "fallback-ended"
    FALLBACK_FAILED = "fallback-failed"
    CERTIFICATE_EXPIRES = "certificate-expires"  # soon, or it has
    CERTIFICATE_TROUBLE = "certificate-trouble"
    # the machine
    FILES_REMOVED = "files-removed"  # of the run folder, by others; made anew
    FILES_LOST = "files-lost"  # likewise, and they cannot be made anew
    FILES_FOREIGN = "files-foreign"  # in the run folder, made by others; left there
    FOLDER_MADE = "folder-made"  # for the run folder
    GPUS_MISSING = "gpus-missing"
    METRICS_MISSING = "metrics-missing"  # a process has no memory to count in
    NOTICE = "notice"  # something that a user should know, of no other kind


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
        event: what happened, if it is a record of that.
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
    event: EventKind | None = None


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


class Say(Protocol):
    """Takes what the supervisor has to say: it is shown, and kept as an event."""

    def __call__(self, kind: EventKind, level: str, message: str, trace: str = "") -> None: ...


def happened(
    kind: EventKind,
    level: str,
    message: str,
    *,
    node: str | None = None,
    slot: int | None = None,
    pid: int | None = None,
    trace: str = "",
    fields: Mapping[str, object] | None = None,
) -> LogRecord:
    """Return the record of something that happened.

    Args:
        kind: what.
        level: of the line of the log; `SHOWN_OTHERWISE`: it is none.
        message: what, in words.
        node: the node that it is about, a slot of it, and a process; None for the graph.
        slot: see there.
        pid: see there.
        trace: a formatted traceback.
        fields: figures, for who reads it as JSON.
    """
    more = {"event": kind.value, **(fields or {})}
    return LogRecord(
        time.time(), level, message, node, slot, pid, traceback=trace, fields=more, event=kind
    )


def log_of(error: BaseException) -> str:
    """Return the user's own traceback or last output, if the error has any."""
    return error.log if isinstance(error, (StartupError, GraphError)) else ""
