"""A node's processes, on circus: spawn, output, death. Runs in the supervisor.

Only circus' `Watcher` and `Process` are used, never its arbiter: its lock, its signal handlers and
its control sockets lose requests or open doors (decision record 0002).
"""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import os
import random
import shlex
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import IO, Protocol

from tornado.ioloop import IOLoop

from graphserve.graph.plan import NodePlan
from graphserve.metrics.memory import SlotMemory
from graphserve.supervise.events import LogRecord
from graphserve.supervise.process._circus import Process, Watcher
from graphserve.supervise.process.output import Pipe, Records
from graphserve.supervise.revision import Revision
from graphserve.supervise.states import WorkerLife, WorkerState
from graphserve.supervise.timing import WorkerTiming
from graphserve.supervise.verdicts import Frozen
from graphserve.system import inherited, stack
from graphserve.system.channel import Channel
from graphserve.system.child_process import FIRST_FILE, end_group
from graphserve.system.messages import (
    FromSupervisor,
    HealthReport,
    MetricsHandover,
    Rebind,
    ServePublic,
)
from graphserve.system.rundir.paths import file_identity, received_files
from graphserve.system.worker_pages import Roster, WorkerPage

LONGEST_LAST_WORDS = 4096  # characters of what a worker printed last, in the record of its death
NO_PROCESS_PAUSE = 1.0  # seconds until it is tried again, when the machine gives us no process


class ChildProcess(Protocol):
    """What is used of circus' `Process`, which has no types."""

    pid: int
    env: Mapping[str, str]
    stdout: IO[bytes]
    stderr: IO[bytes]

    def poll(self) -> int | None:
        """Return its exit code; None as long as it lives."""

    def wait(self) -> int | None:
        """Wait until it has ended."""

    def close_output_channels(self) -> None:
        """Close our ends of its outputs."""


class WorkerProcess(WorkerLife):
    """One worker, from spawn to death; `supervise/states.py` has the states that it goes
    through.
    """

    def __init__(
        self,
        node: str,
        revision: Revision,
        slot: int,
        process: ChildProcess,
        pipes: list[Pipe],
        records: Records,
    ) -> None:
        super().__init__()
        self.node = node
        self.revision = revision
        self.slot = slot
        self.process = process
        self.pipes = pipes
        self.records = records
        self.pid: int = process.pid
        self.usage = Usage(process.pid)
        self.channel: Channel | None = None
        self.address = ""
        # Which file had that name when the worker said that it listens there.
        self.address_identity: tuple[int, int] | None = None
        self.rebinding = False  # it was told to listen there anew
        self.warms_up = False  # its instance is entered, and not warm yet
        # why it ends
        self.message = ""
        self.traceback = ""
        self.options = revision.plan.node(node).options  # its own: those of its node may be newer
        self.spawned_at = asyncio.get_running_loop().time()
        self.timing = WorkerTiming(node, slot, process.pid, self.spawned_at)
        self.ready_at: float | None = None
        # of what it may need so long for: to import, to start, to leave
        self._timer: asyncio.TimerHandle | None = None
        self.drained = asyncio.Event()
        self.serves_public = False  # it was told to, at some time
        self._successor: WorkerProcess | None = None  # who is to take its place
        self.seen_at = 0.0
        self.frozen = Frozen()
        self.health: HealthReport | None = None  # its latest report
        self.page = WorkerPage()  # what it executes
        # where it counts; a fallback server that goes on with the Plan does so in a second one
        self.counts: list[SlotMemory] = []
        self.hangs = False  # whether it is killed for that
        self.reported = asyncio.Event()  # since it was asked
        # of max_requests: workers that began together are replaced apart
        self.quota = random.uniform(1.0, 1.1)

    def enter(self, state: WorkerState) -> None:
        before = self.state
        super().enter(state)
        if state is not before:
            self.timing.entered(state, asyncio.get_running_loop().time())

    def send(self, message: FromSupervisor, fds: list[int] | None = None) -> None:
        """Send a message, if it is connected."""
        if self.channel is not None:
            self.channel.send(message, fds or [])

    def connected(self, channel: Channel) -> None:
        """Keep its control connection."""
        self.channel = channel

    def share_memory(self, descriptor: int) -> None:
        """Keep the memory that it writes what it executes into; the descriptor is ours now."""
        self.page.close()
        self.page = WorkerPage(descriptor)

    def count_in(self, memory: SlotMemory) -> None:
        """Have it count in this memory, which the next message to it may need."""
        self.counts.append(memory)
        self.send(MetricsHandover(), [memory.descriptor])

    def listens_at(self, address: str) -> None:
        """Keep where its own socket is, and which file that is."""
        self.address = address
        self.address_identity = file_identity(address)

    def goes_on_with(self, revision: Revision) -> None:
        """Note that it runs this revision now: it was started before there was a Plan."""
        self.revision = revision

    def rebind(self) -> None:
        """Have it listen on its own socket anew."""
        self.rebinding = True
        self.send(Rebind())

    def rebound(self, *, listens: bool) -> None:
        """Note that it has tried to listen on its own socket anew."""
        self.rebinding = False
        if listens:
            self.listens_at(self.address)

    def begin_warm_up(self) -> None:
        """Note that its instance is entered, and is warmed up until it says that it is ready."""
        self.warms_up = True
        self.timing.warming = asyncio.get_running_loop().time()

    def declare_stuck(self) -> None:
        """Note that it is killed since it hangs."""
        self.hangs = True

    def open_port(self, public: int) -> None:
        """Have it accept at the public port; it takes calls when it says that it listens."""
        self.enter(WorkerState.OPENING)
        self.serves_public = True
        self.send(ServePublic(), [public])

    def become_ready(self) -> None:
        """Note that it takes calls, and has all the time to do so."""
        self.enter(WorkerState.READY)
        now = asyncio.get_running_loop().time()
        self.ready_at = now
        self.seen_at = now
        self.lift_limit()

    def reports(self, health: HealthReport) -> None:
        """Keep what it says of itself, and when."""
        self.seen_at = asyncio.get_running_loop().time()
        self.health = health
        self.reported.set()

    def hand_over_to(self, successor: WorkerProcess) -> None:
        """Have another worker take its place, in the same slot, once that one is ready."""
        self._successor = successor

    @property
    def has_successor(self) -> bool:
        """Return whether a worker that lives was started to take its place."""
        return self._successor is not None and self._successor.state is not WorkerState.GONE

    def ends_for(self, message: str, traceback: str = "") -> None:
        """Keep why it ends, for who is told of its death."""
        self.message = message
        self.traceback = traceback or self.traceback

    def kill(self) -> None:
        """SIGKILL to it and to the processes that it started (see `family`); nothing once it is
        gone.
        """
        if self.state is WorkerState.GONE:
            return  # its pid may be another's by now
        end_group(self.pid)

    def limit(self, seconds: float, then: Callable[[], None]) -> None:
        """Do something if that much time passes; in place of the limit that it had."""
        self.lift_limit()
        self._timer = asyncio.get_running_loop().call_later(seconds, then)

    def lift_limit(self) -> None:
        """Give it all the time that it needs: the limit that it had is gone."""
        if self._timer is not None:
            self._timer.cancel()

    def end(self) -> None:
        """Have it say where it hangs, and end; SIGKILL if that takes long."""
        if self.state is WorkerState.GONE or self.pipes[1].stack is not None:
            return
        self.pipes[1].collect_stack()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(self.pid, stack.SIGNAL)
        self.limit(stack.WRITE_TIMEOUT, self.kill)

    def read_to_the_end(self) -> None:
        """Read what it has still said, and close what it said it by: it is dead."""
        self.records.close()
        os.close(self.records.descriptor)
        for pipe in self.pipes:
            pipe.close()
        if self.channel is not None:
            try:
                self.channel.drain()
            finally:
                self.channel.close()
        self.traceback = self.traceback or str(self.pipes[1].stack or "")

    def last_words(self) -> str:
        """Return its traceback, or what it printed last."""
        return self.traceback or "\n".join(self.pipes[1].tail) or "\n".join(self.pipes[0].tail)

    def words_field(self) -> dict[str, object]:
        """Return what it printed last, as a field of the record of its death; nothing if it left a
        traceback.
        """
        words = "" if self.traceback else self.last_words()[-LONGEST_LAST_WORDS:]
        return {"last_words": words} if words else {}


def slot_of(process: WorkerProcess) -> tuple[str, str]:
    """Return the service and the slot that a process is counted under."""
    return process.node, str(process.slot) if process.slot >= 0 else "fallback"


async def gone(workers: Iterable[WorkerProcess]) -> None:
    """Wait until these have ended."""
    for worker in workers:
        await worker.gone.wait()


class _Watcher(Watcher):  # type: ignore[misc]
    """circus' watcher, which keeps why a process could not be started: circus itself only logs it.

    It gives each process a pipe for its records. Descriptors from 3 on do not reach a process, but
    its standard input may be one of ours.
    """

    refused: OSError | None = None
    records = -1  # what the next process gets as its standard input

    @property
    def _process_class(self) -> Callable[..., Process]:  # pyright: ignore
        return self._make

    def _get_stdin_socket_fd(self) -> int:
        return self.records

    def _make(self, *arguments: object, **options: object) -> Process:
        try:
            return Process(*arguments, **options)
        except OSError as exc:
            self.refused = exc
            raise


class WorkerPool(Protocol):
    """Some processes that are started from one command."""

    workers: dict[int, WorkerProcess]  # by pid

    def spawn(self, slot: int, revision: Revision, env: Mapping[str, str]) -> WorkerProcess:
        """Start a process."""


class MakePool(Protocol):
    """Makes the pool of a node; `Pool` does, of real processes."""

    def __call__(
        self,
        node: NodePlan,
        emit: Callable[[LogRecord], None],
        on_death: Callable[[WorkerProcess, int], None],
        role: str = "worker",
        roster: Roster | None = None,
    ) -> WorkerPool: ...


class Pool:
    """The processes of one node.

    Args:
        node: the node.
        emit: called with each record of their output.
        on_death: called with a worker that is gone, and its exit code (negative: the signal).
        role: what the processes are: `worker`, or `fallback`.
        roster: where they are named as long as they live.
    """

    def __init__(
        self,
        node: NodePlan,
        emit: Callable[[LogRecord], None],
        on_death: Callable[[WorkerProcess, int], None],
        role: str = "worker",
        roster: Roster | None = None,
    ) -> None:
        self._roster = roster
        self._name = node.name
        self._emit = emit
        self._on_death = on_death
        self.workers: dict[int, WorkerProcess] = {}  # by pid
        discard = {"stream": _discard}  # a stream makes circus open pipes; we read them ourselves
        self._watcher = _Watcher(
            node.id,
            shlex.quote(sys.executable),
            ["-P", FIRST_FILE, role, node.id],
            numprocesses=node.workers,
            working_dir=os.getcwd(),
            max_retry=1,
            respawn=False,
            autostart=False,
            stdout_stream=discard,
            stderr_stream=dict(discard),
            loop=IOLoop.current(),
            env={},
        )
        self._watcher.initialize(None, {}, None)  # no publisher: nobody listens to circus' events
        # its own start() spawns all at once, and asks the arbiter's lock
        self._watcher._status = "active"

    def spawn(self, slot: int, revision: Revision, env: Mapping[str, str]) -> WorkerProcess:
        """Start a process.

        Args:
            slot: its slot; -1 for none.
            revision: what it reads.
            env: its environment.

        Raises:
            OSError: the machine will not give us one.
        """
        reading, self._watcher.records = inherited.pipe()
        try:
            process = self._start(slot, env)
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(self._watcher.records)
        try:
            pidfd = os.pidfd_open(process.pid)  # the last descriptor that it takes
        except OSError:
            os.close(reading)
            self._forget(process)
            raise
        shown = slot if slot >= 0 else None
        pipes = [
            Pipe(process.stdout.fileno(), "stdout", self._emit, self._name, shown, process.pid),
            Pipe(process.stderr.fileno(), "stderr", self._emit, self._name, shown, process.pid),
        ]
        records = Records(reading, self._emit, self._name, shown, process.pid)
        worker = WorkerProcess(self._name, revision, slot, process, pipes, records)
        self.workers[worker.pid] = worker
        if self._roster is not None:
            self._roster.add(worker.pid)
        self._watch(worker, pidfd)
        return worker

    def _start(self, slot: int, env: Mapping[str, str]) -> ChildProcess:
        self._watcher.env = dict(env)
        before = set(self._watcher.processes)
        self._watcher.spawn_process(recovery_wid=slot + 1)
        new = set(self._watcher.processes) - before
        if not new:
            raise self._watcher.refused or OSError("no process could be started")
        process: ChildProcess = self._watcher.processes[new.pop()]
        return process

    def _forget(self, process: ChildProcess) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.close_output_channels()
        del self._watcher.processes[process.pid]

    def _watch(self, worker: WorkerProcess, pidfd: int) -> None:
        loop = asyncio.get_running_loop()

        def died() -> None:
            loop.remove_reader(pidfd)
            os.close(pidfd)
            self._died(worker)

        loop.add_reader(pidfd, died)

    def _died(self, worker: WorkerProcess) -> None:
        worker.kill()  # its own children must not outlive it
        if self._roster is not None:  # before it is waited for: its pid may be another's then
            self._roster.discard(worker.pid)
        code = worker.process.poll()
        try:
            worker.read_to_the_end()
        finally:  # a bug there must not leave a dead worker in its slot
            self._remove(worker)
            self._on_death(worker, code if code is not None else 0)
            worker.page.close()

    def _remove(self, worker: WorkerProcess) -> None:
        self._watcher.processes.pop(worker.pid, None)
        worker.process.close_output_channels()
        worker.lift_limit()
        if worker.address:
            with contextlib.suppress(OSError):  # it has done so itself, unless it was killed
                os.unlink(worker.address)
            remove_in_background(received_files(worker.address))
        del self.workers[worker.pid]
        worker.enter(WorkerState.GONE)


def remove_in_background(folder: str) -> None:
    """Remove a folder, if it is there: a thread does it, since large files take long."""
    if os.path.isdir(folder):
        threading.Thread(target=shutil.rmtree, args=(folder, True), daemon=True).start()


def _discard(data: object) -> None:
    pass


TICK = os.sysconf("SC_CLK_TCK")  # units of CPU time a second
SPAN = 1.0  # seconds that a share of CPU is measured over; it may be up to twice as long


class Usage:
    """What one process uses of the machine, from proc(5); all zero once it is gone.

    `since` is when it was first looked at, in seconds since 1970.

    Args:
        pid: the process.
    """

    def __init__(self, pid: int) -> None:
        self.since = time.time()
        self._most = 0.0  # seconds of CPU that it was seen to have used
        self._descriptors = f"/proc/{pid}/fd"
        self._stat = f"/proc/{pid}/stat"
        self._statm = f"/proc/{pid}/statm"
        begin = (time.monotonic(), 0.0)
        self._before = begin
        self._last = begin

    def cpu(self) -> float:
        """Percent of one CPU, since about a second ago; look from time to time, as each look begins
        the next span.
        """
        now = time.monotonic()
        if now - self._last[0] >= SPAN:
            self._before = self._last
            self._last = (now, self._seconds())
        then, used = self._before
        return round(max(0.0, self._seconds() - used) / max(now - then, 1e-3) * 100, 1)

    def seconds(self) -> float:
        """Seconds of CPU that it has used; once it is gone, what was last seen."""
        return max(self._most, self._seconds())

    def take_seconds(self) -> float:
        """Return them for the last time: from now on, there are none."""
        seconds = self._most
        self._most = 0.0
        return seconds

    def descriptors(self) -> int:
        """Return the number of its descriptors."""
        try:
            return len(os.listdir(self._descriptors))
        except OSError:
            return 0

    def memory(self) -> int:
        """Bytes of resident memory."""
        try:
            with open(self._statm) as file:
                return int(file.read().split()[1]) * mmap.PAGESIZE
        except (OSError, IndexError):
            return 0

    def _seconds(self) -> float:
        try:
            with open(self._stat) as file:
                fields = file.read().rpartition(")")[2].split()
            self._most = (int(fields[11]) + int(fields[12])) / TICK  # utime, stime
            return self._most
        except (OSError, IndexError):
            return 0.0
