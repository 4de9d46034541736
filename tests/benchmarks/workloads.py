"""What is measured: graphs, the calls on them, and what would be ideal."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["load", "array", "stream", "start"]
ONE = {"x": 1}
JSON = (("content-type", "application/json"),)
LINES = (*JSON, ("accept", "application/x-ndjson"))
DEEP_SERVICES = 10
STREAM_ITEMS = 50


@dataclass(frozen=True)
class Workload:
    """One row of the table.

    Args:
        name: what bars call it.
        title: what people read.
        kind: load (callers for a time), array (times that the gateway took), stream (ages of
            items), start (new processes: time and memory).
        graph: the graph that it runs on.
        api: what is called.
        callers: how many call side by side.
        body: the arguments.
        ideal_rate: calls a second that the work allows.
        ideal_p99_ms: the latency that nobody needs to exceed then.
        workers: how many workers answer, each in words of its own; 0: the answers do not tell.
        rate_factor: what one answer counts in the rate.
    """

    name: str
    title: str
    graph: str
    api: str
    kind: Kind = "load"
    callers: int = 1
    body: Any = field(default_factory=lambda: ONE)
    headers: tuple[tuple[str, str], ...] = JSON
    ideal_rate: float | None = None
    ideal_p99_ms: float | None = None
    workers: int = 0
    rate_factor: int = 1


def _balance(name: str, title: str, graph: str, callers: int) -> Workload:
    # 4 workers that sleep 20 ms; a caller waits for the calls that are in front of it.
    return Workload(
        name,
        title,
        graph,
        "balance",
        callers=callers,
        ideal_rate=200.0,
        ideal_p99_ms=20.0 * callers / 4,
        workers=4,
    )


WORKLOADS = (
    Workload("local-1", "local, 1 caller", "calls", "local"),
    Workload("local-16", "local, 16 callers", "calls", "local", callers=16),
    Workload("chain-1", "chain of 2, 1 caller", "calls", "chain"),
    Workload("chain-16", "chain of 2, 16 callers", "calls", "chain", callers=16),
    Workload("client-16", "chain of 2 by injected httpx client, 16 callers", "calls", "client", callers=16),
    Workload("uds-16", "chain of 2 by httpx's own uds transport, 16 callers", "calls", "uds", callers=16),
    Workload("deep-1", "chain of 10, 1 caller", "deep", "run"),
    Workload("deep-16", "chain of 10, 16 callers", "deep", "run", callers=16),
    Workload("fan-1", "fan-out to 8, 1 caller", "fan", "fan"),
    Workload("fan-16", "fan-out to 8, 16 callers", "fan", "fan", callers=16),
    _balance("balance-4", "balance, 4 callers", "balance", 4),
    _balance("balance-16", "balance, 16 callers", "balance", 16),
    _balance("balance-wide-4", "balance, 4 gateway workers, 4 callers", "balance-wide", 4),
    _balance("balance-wide-16", "balance, 4 gateway workers, 16 callers", "balance-wide", 16),
    _balance("balance-entry-4", "balance, the model is the entry, 4 callers", "model", 4),
    _balance("balance-entry-16", "balance, the model is the entry, 16 callers", "model", 16),
    # Two workers, each 32 items in 82 ms.
    Workload("batch-64", "batch, 64 callers", "batch", "batch", callers=64, ideal_rate=2 * 32 / 0.082),
    Workload("array-1", "array of 1 MB", "arrays", "tensor", kind="array", body={"mb": 1}),
    Workload("array-16", "array of 16 MB", "arrays", "tensor", kind="array", body={"mb": 16}),
    Workload("array-64", "array of 64 MB", "arrays", "tensor", kind="array", body={"mb": 64}),
    Workload("stream-age", "stream of 50 items, one each 5 ms: age on arrival", "stream", "stream", kind="stream",
             body={"count": STREAM_ITEMS, "gap": 0.005}, headers=LINES),
    Workload("stream-1", "stream, items/s, 1 caller", "stream", "stream", body={"count": STREAM_ITEMS, "gap": 0.0},
             headers=LINES, rate_factor=STREAM_ITEMS),
    Workload("stream-16", "stream, items/s, 16 callers", "stream", "stream", callers=16,
             body={"count": STREAM_ITEMS, "gap": 0.0}, headers=LINES, rate_factor=STREAM_ITEMS),
    Workload("start-2", "start and memory, 2 nodes", "pair", "chain", kind="start"),
    Workload("start-5", "start and memory, 5 nodes in a line", "five", "run", kind="start"),
)  # fmt: skip
