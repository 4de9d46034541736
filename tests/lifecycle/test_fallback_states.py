"""The public port while nobody is there: when a fallback server comes and goes, in every order of
events. No process, and a clock that jumps.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from graphserve.config import Secrets
from graphserve.supervise.fallback_process import (
    LOOKOUT_TRANSITIONS,
    PORT_TRANSITIONS,
    FallbackProcess,
    Lookout,
    PortPhase,
)
from graphserve.supervise.states import WorkerState
from graphserve.system import messages
from graphserve.system.transitions import IllegalTransition, Transitions
from tests.lifecycle.scripted import PLAN, Bench, ScriptedWorker, play

HEALTH = messages.HealthReport(0, 0.0, 0, 0, 0, 0, 0, 0)
EVENTS = ("client", "entry dies", "health", "fallback dies", "fallback drains", "renewed")


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:  # the path of a socket is short
        yield Path(name)


@pytest.mark.parametrize("transitions", [PORT_TRANSITIONS, LOOKOUT_TRANSITIONS])
def test_only_what_a_table_has_may_follow(transitions: Transitions[Any]) -> None:
    states = list(transitions.table)
    for before, after in itertools.product(states, states):
        if after is before or after in transitions.table[before]:
            assert transitions.follow(before, after) is after
        else:
            with pytest.raises(IllegalTransition):
                transitions.follow(before, after)


def test_every_phase_may_end_and_nothing_follows_the_end() -> None:
    assert PORT_TRANSITIONS.table.keys() == set(PortPhase)
    assert LOOKOUT_TRANSITIONS.table.keys() == set(Lookout)
    for phase, after in PORT_TRANSITIONS.table.items():
        assert (PortPhase.ENDED in after) is (phase is not PortPhase.ENDED)
    assert not PORT_TRANSITIONS.table[PortPhase.ENDED]


class Port:
    """The port of a fleet of scripted workers, and who waits there."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.fallback: FallbackProcess = bench.fleet.fallback
        self.clients: list[socket.socket] = []

    def connect(self) -> None:
        """Have a client wait."""
        client = socket.socket(socket.AF_UNIX)
        client.setblocking(False)
        client.connect(str(self.bench.public.path))
        self.clients.append(client)

    def accept(self) -> None:
        """Accept all who wait, as whoever is at the port does."""
        self.bench.public.sock.setblocking(False)
        while True:
            try:
                self.bench.public.sock.accept()[0].close()
            except BlockingIOError:
                return

    @property
    def lookout(self) -> Lookout:
        """How it is found out that somebody waits in vain."""
        return self.fallback._lookout

    @property
    def entry(self) -> ScriptedWorker:
        """The latest worker of the entry."""
        return [
            each for each in self.bench.spawned if each.pool.name == "Entry" and each.slot >= 0
        ][-1]

    @property
    def server(self) -> ScriptedWorker:
        """The latest fallback server."""
        return [each for each in self.bench.spawned if each.slot < 0][-1]

    def happen(self, event: str) -> None:
        current = self.fallback.pid is not None
        if event == "client":
            self.connect()
        elif event == "entry dies":
            self.entry.die()
        elif event == "health":
            self.entry.far.send(HEALTH)
        elif event == "fallback dies" and current:
            self.server.die()
        elif event == "fallback drains" and current:  # somebody sent it SIGTERM by hand
            server = self.server
            server.far.send(messages.Draining())
            asyncio.get_running_loop().call_later(0.1, server.die, 0)
        elif event == "renewed":
            with self.fallback.elsewhere():
                assert self.lookout is not Lookout.LISTENING

    def check(self) -> None:
        """Check what holds at any time."""
        assert not self.bench.bugs
        fallback = self.fallback
        if fallback.pid is not None or fallback.phase in (PortPhase.IDLE, PortPhase.ENDED):
            assert self.lookout is Lookout.NONE
        watched = self.bench.public.sock in [
            key.fileobj for key in asyncio.get_running_loop().selector.get_map().values()
        ]
        assert watched is (self.lookout is Lookout.LISTENING)
        assert sum(each.state.accepts for each in fallback.processes) <= 1

    async def comes(self) -> None:
        """Wait until a fallback server is at the port."""
        await self.bench.until(
            lambda: self.fallback.pid is not None and self.server.state is WorkerState.READY
        )
        self.check()

    async def goes(self) -> None:
        """Wait until none is."""
        await self.bench.until(lambda: self.fallback.pid is None and not self.fallback.processes)
        self.check()

    async def stop(self) -> None:
        await self.bench.stop()
        assert self.fallback.phase is PortPhase.ENDED
        assert self.lookout is Lookout.NONE
        assert not self.fallback.processes
        for client in self.clients:
            client.close()


Scene = Callable[[Port], Any]


def at_port(folder: Path, scene: Scene, script: list[WorkerState | None] | None = None) -> None:
    async def on_bench(bench: Bench) -> None:
        await scene(Port(bench))

    play(folder, script or [], on_bench)


async def started(port: Port) -> None:
    port.bench.public.sock.listen()
    await port.bench.start()
    port.check()
    assert port.fallback.phase is PortPhase.UP


def test_nobody_comes_to_a_port_where_nobody_waits(folder: Path) -> None:
    async def scene(port: Port) -> None:
        await started(port)
        assert port.lookout is Lookout.LISTENING
        await asyncio.sleep(100)
        assert port.fallback.pid is None
        await port.stop()

    at_port(folder, scene)


def test_a_client_that_a_living_worker_accepts_is_no_reason(folder: Path) -> None:
    async def scene(port: Port) -> None:
        await started(port)
        port.connect()
        await port.bench.until(lambda: port.lookout is Lookout.SUSPICIOUS)
        port.check()
        port.accept()
        await port.bench.until(lambda: port.lookout is Lookout.LISTENING)
        assert port.fallback.pid is None
        await port.stop()

    at_port(folder, scene)


def test_one_comes_for_a_client_whom_nobody_accepts_and_goes_at_a_sign_of_life(
    folder: Path,
) -> None:
    async def scene(port: Port) -> None:
        await started(port)
        port.connect()
        await port.comes()
        port.accept()
        port.happen("health")
        await port.goes()
        assert port.lookout is Lookout.LISTENING
        await port.stop()

    at_port(folder, scene)


def test_one_comes_when_the_entry_has_no_worker_and_goes_when_it_has(folder: Path) -> None:
    async def scene(port: Port) -> None:
        await started(port)
        port.bench.script.append(WorkerState.STARTING)  # its replacement takes its time
        port.happen("entry dies")
        await port.comes()
        assert port.entry.state is WorkerState.STARTING
        port.entry.far.send(messages.Ready("/nowhere/entry"))
        await port.goes()
        assert port.fallback.phase is PortPhase.UP
        await port.stop()

    at_port(folder, scene)


def test_one_that_dies_is_followed_by_another_after_a_pause(folder: Path) -> None:
    async def scene(port: Port) -> None:
        await started(port)
        port.bench.script.append(WorkerState.STARTING)
        port.happen("entry dies")
        for _ in range(3):
            await port.comes()
            first = port.server
            first.die()
            await port.bench.until(lambda first=first: first.state is WorkerState.GONE)
            port.check()
            assert port.lookout in (Lookout.PAUSED, Lookout.SUSPICIOUS)
        await port.comes()
        await port.stop()

    at_port(folder, scene)


@pytest.mark.parametrize("waits", [True, False])
def test_the_last_clients_are_answered_before_the_port_closes(folder: Path, waits: bool) -> None:
    async def scene(port: Port) -> None:
        await started(port)
        before = len(port.bench.spawned)
        if waits:
            port.connect()  # and the worker is dead, which nobody has noticed
        port.fallback.close_port()
        assert port.fallback.phase is (PortPhase.LAST_CLIENTS if waits else PortPhase.ENDED)
        assert (len(port.bench.spawned) > before) is waits
        await port.stop()
        if waits:
            assert port.server.state is WorkerState.GONE

    at_port(folder, scene)


def test_the_port_closes_too_when_the_one_for_the_last_clients_dies(folder: Path) -> None:
    async def scene(port: Port) -> None:
        await started(port)
        port.bench.script.append(WorkerState.STARTING)
        port.connect()
        port.fallback.close_port()
        assert port.fallback.phase is PortPhase.LAST_CLIENTS
        port.server.die()
        await port.bench.until(lambda: port.fallback.phase is PortPhase.ENDED)
        await port.stop()

    at_port(folder, scene)


ORDERS = [
    *[(events, 0.0) for events in itertools.permutations(EVENTS, 2)],
    *[(events, 1.0) for events in itertools.permutations(EVENTS, 3)],
]


@pytest.mark.parametrize(
    ("events", "pause"),
    ORDERS,
    ids=lambda each: " then ".join(each) if each and type(each) is tuple else str(each),
)
def test_any_order_of_events_ends_with_somebody_at_the_port(
    folder: Path, events: tuple[str, ...], pause: float
) -> None:
    async def scene(port: Port) -> None:
        await started(port)
        for event in events:
            port.happen(event)
            await asyncio.sleep(pause)
            port.check()
        port.accept()
        port.connect()
        await port.bench.until(
            lambda: port.fallback.pid is not None or port.lookout is not Lookout.NONE
        )
        await port.comes()  # the scripted workers accept nobody
        port.accept()
        await port.bench.until(port.bench.whole)
        port.happen("health")
        await port.goes()
        await port.stop()

    at_port(folder, scene)


def test_who_waits_while_the_graph_starts_is_answered(folder: Path) -> None:
    async def scene(port: Port) -> None:
        bench = port.bench
        bench.public.sock.listen()
        bench.fleet.watch_start(PLAN, {}, Secrets())
        assert port.fallback.phase is PortPhase.STARTING
        port.connect()
        start = asyncio.ensure_future(bench.start())
        await port.comes()
        assert port.fallback.phase is PortPhase.STARTING
        port.accept()
        bench.spawned[0].far.send(messages.Ready("/nowhere/leaf"))
        await start
        assert port.fallback.phase is PortPhase.UP
        await port.goes()
        await port.stop()

    at_port(folder, scene, [WorkerState.STARTING])


@pytest.mark.parametrize("ready", [True, False])
def test_a_stop_while_the_graph_starts(folder: Path, ready: bool) -> None:
    async def scene(port: Port) -> None:
        bench = port.bench
        bench.public.sock.listen()
        bench.fleet.watch_start(PLAN, {}, Secrets())
        port.connect()
        start = asyncio.ensure_future(bench.start())
        await bench.until(lambda: port.lookout is Lookout.SUSPICIOUS)
        port.check()
        if ready:
            await port.comes()
        start.cancel()
        await port.stop()

    at_port(folder, scene, [WorkerState.STARTING])


def test_a_stop_before_anybody_has_come_ends_the_port(folder: Path) -> None:
    async def scene(bench: Bench) -> None:
        fallback = bench.fleet.fallback
        bench.fleet.watch_start(PLAN, {}, Secrets())
        assert fallback.phase is PortPhase.STARTING
        await bench.fleet.drain()
        assert fallback.phase is PortPhase.ENDED
        await bench.fleet.kill()
        assert fallback.phase is PortPhase.ENDED

    play(folder, [], scene)


def test_a_fallback_server_may_drain_before_it_is_ready(folder: Path) -> None:
    """Somebody sends it SIGTERM by hand, and another one comes."""

    async def scene(bench: Bench) -> None:
        await bench.start()
        fallback = bench.fleet.fallback
        # those of the entry and of the port both stay where they are
        bench.script += [WorkerState.STARTING, WorkerState.STARTING]
        bench.spawned[2].die()
        await bench.until(lambda: fallback.pid is not None)
        first = next(each for each in bench.spawned if each.pid == fallback.pid)
        await bench.until(lambda: first.state is WorkerState.STARTING)
        first.far.send(messages.Draining())
        await bench.until(lambda: fallback.pid not in (None, first.pid))
        assert first.state is WorkerState.DRAINING
        first.die(0)
        for worker in bench.live():
            worker.go_on()
        await bench.until(bench.settled)
        await bench.stop()

    play(folder, [], scene)
