"""Faults that kill: workers one after the other, and the supervisor."""

from __future__ import annotations

import os
import random
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from tests.faults import ledger
from tests.faults.load import Answer, Load, numbered
from tests.faults.outcome import Outcome, Setting
from tests.faults.scene import Graph, graph, shared_memory, wait_dead
from tests.harness import alive, eventually, sockets
from tests.measuring.processes import free_port

EVERY = 1.5  # seconds from one death to the next
WORKERS = 2  # of each inner node
INNER = ("Leaf", "Middle")
CALLER = {"Leaf": "Middle", "Middle": "Gateway"}
# before its death: what came to a worker since then may have been read and not yet begun; what a
CLOSE_NS = 50_000_000
# thread of it ended since then may have waited for the event loop to write its answer
SCALE = tuple(word for node in INNER for word in ("--scale", f"{node}={WORKERS}"))
BACK = 2.0  # seconds in which a graph that was started again serves
OUTAGE = 6.0  # seconds from one death of the supervisor to the next


@dataclass(frozen=True)
class Death:
    """A worker that was killed: when (in ns), what it executed, and the seconds until its node was
    whole again.
    """

    node: str
    at: int
    executing: set[int]
    recovery: float


def kill_workers(setting: Setting, folder: Path, *, idempotent: bool) -> Outcome:
    """SIGKILL to a random inner worker, again and again."""
    outcome, path = Outcome(), "/again" if idempotent else "/once"
    with graph(folder, *SCALE) as running:
        with Load(running.port, numbered(running.port, path), rate=setting.rate) as load:
            deaths = _deaths(running, time.monotonic() + setting.seconds)
        outcome.take(load.results)
        outcome.recovered(death.recovery for death in deaths)
        count = sum(len(death.executing) for death in deaths)
        outcome.remarks.append(f"{len(deaths)} workers killed, which executed {count} calls")
        if idempotent:
            outcome.never(load.results.failures, f"{outcome.failed} calls failed")
        else:
            _judge(outcome, load.results.failures, deaths, folder)
    return outcome


def _judge(outcome: Outcome, failures: list[Answer], deaths: list[Death], folder: Path) -> None:
    """Each failure is a problem that names the node of a killed worker, which executed that very
    call.
    """
    executing = set[int]().union(*(death.executing for death in deaths))
    entries = {
        node: {each.id: each for each in ledger.read(folder, node)}
        for node in (*INNER, *CALLER.values())
    }
    close = 0
    for answer in failures:
        node = answer.problem.get("service", "")
        if answer.status not in (502, 503) or node not in INNER:
            outcome.never(True, f"call {answer.id}: {answer}")
        elif answer.id not in executing:
            at = _held_at(answer.id, entries[node], entries[CALLER[node]])
            near = any(
                death.node == node and death.at - CLOSE_NS < at <= death.at for death in deaths
            )
            outcome.never(not near, f"call {answer.id} was executed by no killed worker: {answer}")
            close += 1
    if close:
        outcome.remarks.append(
            f"{close} failed that had come to a worker, or ended in it, just before its death"
        )
    count = sum(len(death.executing) for death in deaths) + close
    outcome.never(
        outcome.failed > count, f"{outcome.failed} calls failed, only {count} were executed"
    )


def _held_at(id: int, own: dict[int, ledger.Entry], callers: dict[int, ledger.Entry]) -> int:
    """When a worker held a call that it did not execute as far as its ledger says; 0 if that cannot
    be.
    """
    if id not in own:
        return callers[id].began if id in callers else 0
    return 0 if own[id].answered else own[id].ended or 0


def _deaths(running: Graph, end: float) -> list[Death]:
    deaths, due = [], time.monotonic() + EVERY / 2
    while due < end:
        time.sleep(max(0.0, due - time.monotonic()))
        deaths.append(_kill(running, random.choice(running.workers(*INNER))))
        due += EVERY
    time.sleep(max(0.0, end - time.monotonic()))
    return deaths


def _kill(running: Graph, pid: int) -> Death:
    began = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    wait_dead([pid])
    at = time.monotonic_ns()
    executing = ledger.executing(running.folder, pid, at)
    node = running.node_of(pid)
    running.wait_workers(node, WORKERS)
    return Death(node, at, executing, time.monotonic() - began)


def kill_supervisor(setting: Setting, folder: Path) -> Outcome:
    """SIGKILL to the supervisor, and the same command again."""
    outcome, port, before, outages = (
        Outcome(),
        free_port(),
        shared_memory(),
        list[tuple[float, float]](),
    )
    rounds = max(1, int(setting.seconds / OUTAGE))
    running = _serve(folder, port)
    try:
        with Load(port, numbered(port, "/once"), rate=setting.rate) as load:
            for _ in range(rounds):
                time.sleep(setting.seconds / rounds / 3)
                running, outage = _restart(running, outcome)
                outages.append(outage)
            time.sleep(setting.seconds / rounds / 3)
        outcome.never(running.served.stop() != 0, "the stop at the end did not exit with 0")
    finally:
        running.served.close()
    _outages(outcome, load, outages)
    outcome.never(left := list(running.runtime.iterdir()), f"run folders were left: {left}")
    outcome.never(held := shared_memory() - before, f"left in /dev/shm: {held}")
    return outcome


def _serve(folder: Path, port: int) -> Graph:
    running = Graph(folder, port)
    try:
        return running.wait_ready()
    except BaseException:
        running.served.close()
        raise


def _restart(running: Graph, outcome: Outcome) -> tuple[Graph, tuple[float, float]]:
    workers = running.workers()
    killed = time.monotonic()
    running.served.signal(signal.SIGKILL)
    running.served.process.wait()
    again = _serve(running.folder, running.port)
    back = time.monotonic()
    running.served.close()
    outcome.never(left := [pid for pid in workers if alive(pid)], f"workers were left: {left}")
    known = again.served.workers()
    eventually(lambda: len(again.workers()) == len(workers))
    strays = [path for path in sockets(again.run_dir) if int(path.stem) not in known]
    outcome.never(strays, f"sockets were left: {strays}")
    return again, (killed, back)


def _outages(outcome: Outcome, load: Load, outages: list[tuple[float, float]]) -> None:
    """Only what was under way when the supervisor died, or asked before the graph was back, may
    fail.
    """
    outcome.take(load.results)
    outside = [
        answer for answer in load.results.failures
        if not any(answer.due < back and answer.ended > killed for killed, back in outages)
    ]  # fmt: skip
    outcome.never(outside, f"outside of outages: {[str(answer) for answer in outside[:3]]}")
    outcome.remarks.append(
        f"{len(outages)} deaths; what failed was under way when the supervisor died"
    )
    took = [back - killed for killed, back in outages]
    outcome.recovered(took)
    if max(took) > BACK:
        outcome.slow.append(f"back after {max(took):.2f} s")
