"""The faults, in the order of the table."""

from __future__ import annotations

from functools import partial

from tests.faults.changes import failing_reload, reload, scale
from tests.faults.deaths import kill_supervisor, kill_workers
from tests.faults.holds import cut, hang
from tests.faults.outcome import Fault
from tests.faults.overload import overload
from tests.faults.stops import stop

FAULTS = (
    Fault(
        "kill-again", "`kill -9` a random inner worker every 1.5 s, APIs idempotent", "0 failed",
        partial(kill_workers, idempotent=True),
    ),
    Fault(
        "kill-once", "the same, APIs not idempotent",
        "failed ≤ calls that the killed workers executed; each is a 502 or 503 that names the node",
        partial(kill_workers, idempotent=False),
    ),
    Fault("reload", "reload of every node, three times", "0 failed, worst ≤ 3 × normal p99 or 250 ms", reload),
    Fault("scale", "scale 1 → 4 → 1, each node", "0 failed", scale, needs="scale"),
    Fault("stop", "SIGTERM at full load", "0 accepted requests unanswered, exit 0", stop),
    Fault(
        "hang", "a leaf hangs for ever", "its callers get 504 on time, 0 others failed, the worker is replaced", hang
    ),
    Fault("cut", "all clients cut the line half-way through a 3-hop call", "0 leaf calls run 100 ms later", cut),
    Fault(
        "overload", "3 × overload", "goodput ≥ 90 % of the peak, no answer later than its deadline + 50 ms", overload
    ),
    Fault("failing-reload", "a node fails at start-up after a reload", "the old code serves, 0 failed", failing_reload),
    Fault("supervisor", "`kill -9` the supervisor, start again", "back within 2 s, nothing is left", kill_supervisor),
)  # fmt: skip
