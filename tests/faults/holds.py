"""Faults that hold: a leaf that never answers, and clients that leave while it works for them."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from tests.faults import ledger
from tests.faults.load import Answer, Client, Load, numbered
from tests.faults.outcome import Outcome, Setting
from tests.faults.scene import LOOK, Graph, graph
from tests.harness import alive, eventually

DEADLINE = 0.5  # seconds that the callers of what hangs wait
LATE = 0.05  # seconds after it that an answer may come
WATCHDOG = 1.0  # seconds after a call's deadline
EVERY = 5.0  # seconds from one call that hangs to the next
LEAVES = 3
GONE = 0.1  # seconds after a client left in which what it asked for ends
CUT_EVERY = 6.0  # seconds from one cut of all lines to the next


def hang(setting: Setting, folder: Path) -> Outcome:
    """Calls that never end: in a thread, which nothing can interrupt, and on the event loop."""
    outcome = Outcome()
    rounds = max(1, int(setting.seconds / EVERY))
    with graph(
        folder, "--scale", f"Leaf={LEAVES}", "--set", f"Leaf.watchdog={WATCHDOG}"
    ) as running:
        with Load(running.port, numbered(running.port, "/once"), rate=setting.rate) as load:
            for number in range(rounds):
                _hang(running, outcome, 1_000_000 + number)
                time.sleep(
                    max(
                        0.0, load.began + (number + 1) * setting.seconds / rounds - time.monotonic()
                    )
                )
        outcome.take(load.results)
        outcome.never(load.results.failures, f"{outcome.failed} calls of others failed")
    outcome.remarks.append(
        f"{2 * rounds} calls hung; recovery is the time from the deadline to a new worker"
    )
    return outcome


def _hang(running: Graph, outcome: Outcome, id: int) -> None:
    before = running.workers("Leaf")
    deadline = time.monotonic() + DEADLINE
    for answer in asyncio.run(_ask_both(running.port, id)):
        _judge(outcome, answer)
    running_in = [
        pid
        for pid in before
        if any(each.id == id and each.ended is None for each in _held(running, pid))
    ]
    outcome.never(len(running_in) != 1, f"call {id} runs in {running_in} after its deadline")
    eventually(lambda: not any(alive(pid) for pid in running_in), 30)
    running.wait_workers("Leaf", LEAVES)
    outcome.recovered([time.monotonic() - deadline])


def _held(running: Graph, pid: int | str = "*") -> list[ledger.Entry]:
    return ledger.read(running.folder, "Held", pid)


async def _ask_both(port: int, id: int) -> list[Answer]:
    client = Client(port)

    async def ask(path: str, id: int) -> Answer:
        request = numbered(port, path, x_request_timeout=f"{DEADLINE}")(id)
        due = time.monotonic()
        status, body = await client.ask(request.encode(), new=True)
        return Answer(id, due, time.monotonic(), status, body)

    try:
        return await asyncio.gather(ask("/hang", id), ask("/wait", -id))
    finally:
        client.close()


def _judge(outcome: Outcome, answer: Answer) -> None:
    outcome.sent += 1
    outcome.worst = max(outcome.worst, answer.took)
    outcome.never(answer.status != 504, f"the caller of a leaf that hangs got {answer}")
    # whose clock is read first is a matter of milliseconds
    if answer.problem.get("service") != "Leaf":
        outcome.slow.append(f"the 504 of a leaf that hangs named another: {answer}")
    if answer.took > DEADLINE + LATE:
        outcome.slow.append(
            f"the caller of a leaf that hangs got its answer after {answer.took:.3f} s"
        )


@dataclass(frozen=True)
class Cut:
    """A client that left: the number of its call, and when."""

    id: int
    at: int


def cut(setting: Setting, folder: Path) -> Outcome:
    """Many clients cut the line while a leaf, two hops below, works for them."""
    outcome, first, late = Outcome(), 1_000_000, 0
    rounds = max(1, int(setting.seconds / CUT_EVERY))
    with graph(folder, "--scale", "Leaf=2", "--scale", "Middle=2") as running:
        with Load(running.port, numbered(running.port, "/once"), rate=setting.rate) as load:
            for number in range(rounds):
                late += _cut(running, outcome, first + number * setting.clients, setting.clients)
                time.sleep(
                    max(
                        0.0, load.began + (number + 1) * setting.seconds / rounds - time.monotonic()
                    )
                )
        outcome.take(load.results)
        outcome.never(load.results.failures, f"{outcome.failed} calls of others failed")
    outcome.remarks.append(
        f"{rounds} × {setting.clients} clients; recovery is the time to the end of the last call"
    )
    if late:
        outcome.slow.append(f"{late} leaf calls ran on for more than {GONE * 1e3:.0f} ms")
    return outcome


def _cut(running: Graph, outcome: Outcome, first: int, clients: int) -> int:
    """One round; how many calls ran on for too long."""
    ids = range(first, first + clients)
    cuts = leave(running, ids)
    outcome.sent += clients
    # The ledger says when each call ended. To read it takes as much of a core as a worker: not
    # while they are at it.
    eventually(lambda: time.monotonic_ns() > cuts[-1].at + 3 * GONE * 1e9)
    eventually(lambda: not any(each.ended is None for each in _held(running)), 30)
    ended = {each.id: each.ended or 0 for each in _held(running)}
    took = [(ended[cut.id] - cut.at) / 1e9 for cut in cuts]
    outcome.recovered(took)
    return sum(seconds > GONE for seconds in took)


def leave(running: Graph, ids: range) -> list[Cut]:
    """Clients, one for each number, that ask for what never ends and leave when all of it is under
    way.
    """
    cuts: list[Cut] = []
    go = threading.Event()
    thread = threading.Thread(
        target=lambda: cuts.extend(asyncio.run(_wait_and_leave(running.port, ids, go)))
    )
    thread.start()
    try:
        eventually(lambda: len({each.id for each in _held(running)} & set(ids)) == len(ids), 60)
    finally:
        go.set()
        thread.join()
    return cuts


async def _wait_and_leave(port: int, ids: range, go: threading.Event) -> list[Cut]:
    """Ask with each of these numbers; then leave all at once, every second one with a reset."""
    writers = {}
    for id in ids:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(numbered(port, "/wait")(id).encode())
        writers[id] = writer
    while not go.is_set():  # noqa: ASYNC110 - set by another thread
        await asyncio.sleep(LOOK)
    cuts = []
    for id, writer in writers.items():
        writer.transport.abort() if id % 2 else writer.close()
        cuts.append(Cut(id, time.monotonic_ns()))
        if len(cuts) % 50 == 0:
            await asyncio.sleep(0)  # what was closed leaves now
    await asyncio.sleep(0)
    return cuts
