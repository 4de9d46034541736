"""One generation of a graph: all its nodes, started in order, stopped in order. Runs in the supervisor.

A reload starts a second generation beside the first; both serve the same public socket while they change places.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from pathlib import Path
from typing import Any

from graphserve import rundir, shortage
from graphserve.control import Channel, Message
from graphserve.errors import StartupError
from graphserve.plan import Plan
from graphserve.supervise import sockets
from graphserve.supervise.environment import Environment
from graphserve.supervise.node import Node
from graphserve.supervise.observer import LogRecord, NodeState, Observer, State
from graphserve.supervise.pool import WorkerProcess

NO_ROOM_PAUSE = 1.0  # seconds until a worker that found no descriptor here is let in again


class Generation:
    """The processes of one Plan.

    Args:
        plan: what to run.
        run: its folder in the run folder; exists, mode 0700.
        public: the public socket.
        observer: who watches.
        env: what `--env-file` says.
        secrets: what workers need and no file may hold, such as the password of the TLS key.
    """

    def __init__(
        self, plan: Plan, run: Path, public: sockets.PublicSocket, observer: Observer, env: dict[str, str],
        secrets: dict[str, Any],
    ) -> None:  # fmt: skip
        self.plan, self.run, self.public, self.observer, self.secrets = plan, run, public, observer, secrets
        self.began = asyncio.get_running_loop().time()
        self.broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._shows = True
        self._environment = Environment(plan, run, env)
        self._door: socket.socket | None = None
        self.nodes: dict[str, Node] = {}
        self._pulse: asyncio.TimerHandle | None = None
        self._shown: dict[str, tuple[State, int]] = {}

    async def start(self) -> None:
        """Start every node, leaves first; returns when all are ready.

        Raises:
            StartupError: a worker died before its node was ready. Nothing is left running.
        """
        self._warn()
        try:
            self._open_door()
            for plan in self.plan.nodes:
                env = lambda slot, plan=plan: self._environment.of(plan, slot)  # noqa: E731
                made = sockets.shared(self.run, plan)
                self.nodes[plan.name] = Node(plan, made, env, self.observer.log, self._changed, self._node_broken)
            for node in self.nodes.values():  # all import side by side; each initialises at its turn
                node.spawn_all()
                self._changed(node)
            ready = asyncio.ensure_future(self._all_started())
            try:
                await asyncio.wait([ready, self.broken], return_when=asyncio.FIRST_COMPLETED)
            finally:
                ready.cancel()
            if self.broken.done():
                self.broken.result()
            self._beat()
        except OSError as exc:
            await self.kill()
            raise StartupError(f"the graph could not start: {shortage.words(exc)}") from exc
        except BaseException:
            await self.kill()
            raise

    def _warn(self) -> None:
        if without := self._environment.without:
            words = f"there are not enough GPUs: {', '.join(without)} will see none (`graphserve check` counts them)"
            self.observer.log(LogRecord(time.time(), "warning", words))

    async def _all_started(self) -> None:
        for node in self.nodes.values():
            await node.started.wait()

    async def drain(self) -> None:
        """Stop in order: each node when everything that calls it is gone, the entry first."""
        done = {name: asyncio.Event() for name in self.nodes}

        async def stop(node: Node) -> None:
            for caller in self.plan.callers(node.plan.name):
                await done[caller].wait()
            await node.drain(node.plan.options.graceful_timeout)
            node.close_sockets()
            done[node.plan.name].set()

        await asyncio.gather(*(stop(node) for node in self.nodes.values()))
        self._close()

    async def kill(self) -> None:
        """End everything at once."""
        await asyncio.gather(*(node.kill() for node in self.nodes.values()))
        for node in self.nodes.values():
            node.close_sockets()
        self._close()

    def retire(self) -> None:
        """Another generation took its place: its end is no news."""
        self._shows = False

    def unready(self) -> None:
        """Have the entry's `/readyz` say 503 while it still answers."""
        for worker in self.nodes[self.plan.entry].ready_workers():
            worker.send({"type": "unready"})

    def _beat(self) -> None:
        for node in self.nodes.values():
            node.check_pulse()
        self._pulse = asyncio.get_running_loop().call_later(1.0, self._beat)

    def _close(self) -> None:
        if self._pulse is not None:
            self._pulse.cancel()
        if self._door is not None:
            asyncio.get_running_loop().remove_reader(self._door)
            self._door.close()
            self._door = None

    # --- workers that connect ---

    def _open_door(self) -> None:
        path = rundir.workers_socket(self.run)
        self._door = socket.socket(socket.AF_UNIX)
        with sockets.private_umask():
            self._door.bind(path)
        self._door.listen(1024)
        self._door.setblocking(False)
        asyncio.get_running_loop().add_reader(self._door, self._knock)

    def _knock(self) -> None:
        assert self._door is not None
        try:
            sock, _ = self._door.accept()
        except BlockingIOError:
            return
        except OSError as exc:
            self._no_room(exc)
            return
        pid, _uid, _gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        worker = self._find(pid)
        if worker is None:  # nobody of ours: the kernel says who it is
            sock.close()
            return
        worker.channel = Channel(sock, lambda message, fds: self._hear(worker, message), lambda: self._hung_up(worker))

    def _no_room(self, exc: OSError) -> None:
        words = f"a worker cannot be reached: {shortage.words(exc)}"
        if self._pulse is None:
            self._broken(StartupError(words))
            return
        # It waits in the queue; the door would be ready to be read all the while.
        loop, door = asyncio.get_running_loop(), self._door
        loop.remove_reader(door)
        loop.call_later(NO_ROOM_PAUSE, lambda: door is self._door and loop.add_reader(door, self._knock))
        self.observer.log(LogRecord(time.time(), "error", words))

    def _find(self, pid: int) -> WorkerProcess | None:
        for node in self.nodes.values():
            if pid in node.pool.workers:
                return node.pool.workers[pid]
        return None

    def _hung_up(self, worker: WorkerProcess) -> None:
        # A worker that lives on without its connection cannot be steered. Its death usually comes first.
        if worker.state not in ("gone", "draining"):
            asyncio.get_running_loop().call_later(0.5, worker.kill)

    def _hear(self, worker: WorkerProcess, message: Message) -> None:
        try:
            self._on_message(worker, message)
        except OSError as exc:  # no descriptors for what it was to be sent
            worker.message = f"a worker of {worker.node.name} could not be served: {shortage.words(exc)}"
            worker.kill()

    def _on_message(self, worker: WorkerProcess, message: Message) -> None:
        match message["type"]:
            case "hello":
                pass
            case "imported":
                worker.state = "imported"
                self._give_turns()
            case "ready":
                self._ready(worker, message["address"])
            case "failed":
                worker.message, worker.traceback = message["message"], message["traceback"]
            case "draining":
                if worker.state == "ready":
                    worker.state = "draining"  # somebody sent it SIGTERM by hand: another will take its place
                    self._changed(self.nodes[worker.node.name])
            case "vitals":
                self.nodes[worker.node.name].vitals(worker, message)
            case "drained":
                worker.drained.set()

    def _ready(self, worker: WorkerProcess, address: str) -> None:
        self.nodes[worker.node.name].ready(worker, address)
        if worker.node.name == self.plan.entry:
            self.public.listen()
            worker.send({"type": "serve"}, [self.public.sock.fileno()])

    # --- order ---

    def _give_turns(self) -> None:
        for node in self.nodes.values():
            for worker in node.workers:
                if worker.state == "imported" and all(self._answers(name) for name in node.plan.needs()):
                    snapshot = [other.membership() for other in self.nodes.values()]
                    node.turn(worker, snapshot, self.secrets if node.plan.name == self.plan.entry else {})

    def _answers(self, name: str) -> bool:
        """Whether who needs this node may initialise: all its workers at the start, then one; or it is failed."""
        node = self.nodes[name]
        return node.state == "failed" or (node.started.is_set() and bool(node.ready_workers()))

    def _changed(self, node: Node) -> None:
        message = {"type": "members", "nodes": [node.membership()]}
        for other in self.nodes.values():
            for worker in other.workers:
                if worker.state in ("starting", "ready", "draining"):
                    worker.send(message)
        self._show(node)
        self._give_turns()

    def _show(self, node: Node) -> None:
        shown = (node.state, len(node.ready_workers()))
        if self._shows and self._shown.get(node.plan.name) != shown:
            self._shown[node.plan.name] = shown
            seconds = asyncio.get_running_loop().time() - self.began
            self.observer.node(NodeState(node.plan.name, *shown, node.plan.workers, seconds))

    def _node_broken(self, node: Node, words: str, log: str) -> None:
        self._broken(StartupError(words, node.plan.name, log))

    def _broken(self, error: StartupError) -> None:
        if not self.broken.done():
            self.broken.set_exception(error)
            self.broken.exception()  # looked at: a second failure must not be reported as unseen
