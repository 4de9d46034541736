"""The fleet: all nodes that run, of whatever revision, started in order and stopped in order.

Runs in the supervisor.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from pathlib import Path

from graphserve.config import Secrets
from graphserve.errors import StartupError
from graphserve.graph.plan import NodePlan, Plan
from graphserve.loop.periodic import Periodic
from graphserve.supervise.counts import GraphCounts
from graphserve.supervise.events import EventKind, NodeState, Observer, State, happened
from graphserve.supervise.fallback_process import FallbackProcess
from graphserve.supervise.node import Node
from graphserve.supervise.process import sockets
from graphserve.supervise.process.control_connections import ControlConnections
from graphserve.supervise.process.environment import Environment
from graphserve.supervise.process.reaper import is_dead
from graphserve.supervise.process.worker_process import MakePool, Pool, WorkerProcess
from graphserve.supervise.revision import PROVISIONAL, Revision, same
from graphserve.supervise.rollout import Rollout
from graphserve.supervise.states import NodePhase, WorkerState
from graphserve.supervise.timing import Timings
from graphserve.supervise.waiting import together
from graphserve.system import messages, os_errors
from graphserve.system.inherited import MARK_VARIABLE
from graphserve.system.rundir.cleanup import remove_node
from graphserve.system.worker_pages import Roster

BEAT_INTERVAL = 1.0  # seconds between two looks at each worker, and two beats that it is sent


class Fleet:
    """The processes of a graph.

    Args:
        run: the run folder.
        public: the public socket.
        observer: who watches.
        make_pool: makes the processes of a node.
        look: looks after the run folder; takes a socket that somebody could not connect to, or "".
    """

    def __init__(
        self,
        run: Path,
        public: sockets.PublicSocket,
        observer: Observer,
        make_pool: MakePool = Pool,
        look: Callable[[str], None] = lambda suspect: None,
    ) -> None:
        self._make_pool = make_pool
        self.run = run
        self.public = public
        self.observer = observer
        self.nodes: list[Node] = []  # those that have processes, in the order in which they came
        self.rollouts: dict[Node, Rollout] = {}
        # its revisions
        self.current: Revision | None = None  # the one that the graph is of
        self.incoming: Revision | None = None  # the one that it is about to be of
        self._nodes_of: dict[Revision, dict[str, Node]] = {}  # by name
        self._revisions = 0  # that there were, but for the provisional one
        self._ids = 0  # that were given to nodes
        # what runs
        self._connections: ControlConnections | None = None
        self._roster = Roster()
        self.counts = GraphCounts(self._say_uncounted)
        self.timings = Timings()
        self._ends: dict[Node, asyncio.Task[None]] = {}
        self._killed = False  # whether everything ends at once, and nothing in order any more
        self._progressed = asyncio.Event()  # set, and replaced, when something has changed
        self._unready = False
        self._pulse = Periodic(BEAT_INTERVAL, self._check_pulses, self._send_beats)
        # by name: a reload may have two nodes of one
        self._shown: dict[str, tuple[State, int, int, bool]] = {}
        self._look = look
        self.fallback = FallbackProcess(self, make_pool)
        self._provisional_plan: tuple[Plan, Mapping[str, str], Secrets] | None = None
        self._provisional: Revision | None = None

    def add_revision(self, plan: Plan, extra: Mapping[str, str], secrets: Secrets) -> Revision:
        """Make a revision of a Plan, which the graph is about to be of.

        Nodes that run already are in it, the others get a place, and start later.

        Args:
            plan: what shall run.
            extra: what `--env-file` says.
            secrets: for workers of the entry; no file may hold them.

        Raises:
            StartupError: no socket can be made.
        """
        self.look()
        kept = {node.name: self._alike(node) for node in plan.nodes}
        configured = {node.name: node.workers for node in plan.nodes}
        plan = dataclasses.replace(
            plan, nodes=tuple(self._placed(node, kept[node.name]) for node in plan.nodes)
        )
        held = self.current.environment.devices if self.current is not None else {}
        self._revisions += 1
        environment = Environment(plan, self.run, self._revisions, extra, held)
        try:
            revision = Revision(self._revisions, plan, self.run, environment, secrets, configured)
            self._nodes_of[revision] = {}
            for each in plan.nodes:  # all, before its first worker starts
                self._nodes_of[revision][each.name] = kept[each.name] or self._new(each, revision)
        except OSError as exc:
            raise StartupError(f"the graph could not start: {os_errors.explain(exc)}") from exc
        if without := environment.without:
            words = (
                f"there are not enough GPUs: {', '.join(without)} will see none (`graphserve check`"
                " counts them)"
            )
            self.observer.log(happened(EventKind.GPUS_MISSING, "warning", words))
        self.incoming = revision
        return revision

    def adopt(self, revision: Revision) -> None:
        """Have the graph be of this revision; what only another one needs goes."""
        self.current = revision
        self.incoming = None
        self.sweep()

    def abandon_incoming(self) -> None:
        """Have the graph stay what it is; what only the incoming revision needs goes."""
        self.incoming = None
        self.sweep()

    def _alike(self, plan: NodePlan) -> Node | None:
        """Return the node that runs and that callers of `plan` can call."""
        return next(
            (node for node in self.nodes if node not in self._ends and same(node.plan, plan)), None
        )

    def _placed(self, plan: NodePlan, node: Node | None) -> NodePlan:
        if node is None:
            identity = f"n{self._ids}"
            self._ids += 1
        else:
            identity = node.plan.id
        # What `graphserve scale` said holds until the configuration says something new.
        before = self._nodes_of[self.current].get(plan.name) if self.current is not None else None
        scaled = before is not None and before.revision.configured[plan.name] == plan.workers
        workers = before.plan.workers if before is not None and scaled else plan.workers
        return dataclasses.replace(plan, id=identity, workers=workers)

    def _new(self, plan: NodePlan, revision: Revision) -> Node:
        shared = sockets.shared(self.run, plan)
        node = Node(
            plan,
            revision,
            shared,
            self.observer.log,
            self._changed,
            self.look,
            self._tell_suspects,
            self._roster,
            self.counts,
            self.timings,
            self._make_pool,
        )
        self.nodes.append(node)
        self.rollouts[node] = Rollout(node)
        return node

    def nodes_of(self, revision: Revision) -> Mapping[str, Node]:
        """Return the nodes of a revision, by name; none for one that was made before there was a
        Plan.
        """
        return self._nodes_of[revision]

    def current_nodes(self) -> Mapping[str, Node]:
        """Return the nodes that the graph is of, by name; none before its start."""
        return self._nodes_of[self.current] if self.current is not None else {}

    def marks(self) -> list[tuple[int, str]]:
        """Return the pid and the mark of each process."""
        return [(worker.pid, worker.process.env[MARK_VARIABLE]) for worker in self.processes()]

    def watch_start(self, plan: Plan, extra: Mapping[str, str], secrets: Secrets) -> None:
        """Have a fallback server answer who waits at the port for long while the graph starts.

        Args:
            plan: what is known of it.
            extra: what `--env-file` says.
            secrets: for the fallback server.

        Raises:
            StartupError: no socket can be made.
        """
        self._provisional_plan = (plan, extra, secrets)
        self._listen()
        self.fallback.watch_start()

    def known(self) -> Plan:
        """Return the Plan of the graph; as long as there is none, what is known of it."""
        if self.current is not None:
            return self.current.plan
        assert self._provisional_plan is not None
        return self._provisional_plan[0]

    def provisional(self) -> Revision:
        """The revision that the fallback server starts from while the graph is being resolved.

        Raises:
            OSError: its file cannot be written.
        """
        if self._provisional is None:
            assert self._provisional_plan is not None
            plan, extra, secrets = self._provisional_plan
            environment = Environment(plan, self.run, PROVISIONAL, extra, {})
            self._provisional = Revision(PROVISIONAL, plan, self.run, environment, secrets, {})
            self._nodes_of[self._provisional] = {}
        return self._provisional

    def _listen(self) -> None:
        """Let workers connect."""
        if self._connections is not None:
            return
        try:
            self._connections = ControlConnections(self.run, self._find, self._on_message)
        except OSError as exc:
            raise StartupError(f"the graph could not start: {os_errors.explain(exc)}") from exc
        self._pulse.begin()

    async def start(self, revision: Revision) -> None:
        """Start every node, leaves first; returns when all that the graph requires are
        ready.

        Raises:
            StartupError: a worker died before its node was ready.
        """
        self.current = revision
        self.incoming = None
        self._listen()
        self.fallback.resolved()
        await self.bring_up(self.nodes_of(revision).values())
        self.fallback.watch()

    async def bring_up(self, nodes: Collection[Node]) -> None:
        """Start nodes that have no worker yet: all import side by side, each initialises when what
        it needs is ready; returns when those are up that the graph does not start without.

        Raises:
            StartupError: a worker died before its node was ready.
        """
        for node in nodes:
            try:
                node.spawn_all()
            except OSError as exc:
                raise StartupError(f"the graph could not start: {os_errors.explain(exc)}") from exc
            self._changed(node)
        await together(node.up() for node in nodes if node.required)

    async def drain(self) -> None:
        """Stop in order: the port, then each node when everything that calls it is gone."""
        self.fallback.close_port()
        await asyncio.gather(self.fallback.drain(), *(self._drain(node) for node in self.nodes))
        self._close()

    async def _drain(self, node: Node) -> None:
        while any(node in self._needs(other) for other in self.nodes if other is not node):
            await self._progressed.wait()
        # It may have ended meanwhile, since a reload has replaced it.
        if node in self.nodes and not self._killed:
            await self.end(node)

    async def kill(self) -> None:
        """End everything at once; no node is drained any more, whatever its callers come to."""
        self._killed = True
        for task in self._ends.values():
            task.cancel()
        await asyncio.gather(self.fallback.kill(), *(node.kill() for node in self.nodes))
        for node in self.nodes:
            node.close_sockets()
        self._close()

    def end(self, node: Node) -> asyncio.Task[None]:
        """Drain a node that nobody calls any more, and remove it."""
        if node not in self._ends:
            self._ends[node] = asyncio.ensure_future(self._end(node))
        return self._ends[node]

    async def _end(self, node: Node) -> None:
        await node.drain(partial(self.fallback.gone, node))
        node.close_sockets()
        remove_node(self.run, node.plan.id)
        node.quarantine.end()
        self.nodes.remove(node)
        del self.rollouts[node]
        del self._ends[node]
        if (other := self.current_nodes().get(node.plan.name)) is not None and other is not node:
            self._show(other)  # the new one did not start
        self._wake_waiters()
        self.sweep()

    def sweep(self) -> None:
        """Let go what nobody needs any more, unless all is killed: nodes, and Plans on disk."""
        if self._killed or len(self._nodes_of) < 2:
            return
        wanted = [revision for revision in (self.current, self.incoming) if revision is not None]
        needed = {node for revision in wanted for node in self.nodes_of(revision).values()}
        for node in self.nodes:
            if node not in needed and not any(
                node in self._needs(other) for other in self.nodes if other is not node
            ):
                if any(node.plan.name in self.nodes_of(revision) for revision in wanted):
                    node.hide()  # another one took its place
                self.end(node)
        used = {
            revision for node in self.nodes for revision in node.revisions()
        } | self.fallback.revisions()
        for revision in [
            revision
            for revision in self._nodes_of
            if revision not in used and revision not in wanted
        ]:
            revision.remove()
            del self._nodes_of[revision]

    async def ended(self, nodes: Iterable[Node]) -> None:
        """Wait until these are gone, those of them that are to go; they go on when the wait is
        given up.
        """
        ends = [self._ends[node] for node in nodes if node in self._ends]
        await asyncio.gather(*map(asyncio.shield, ends))

    def unready(self) -> None:
        """Have the entry's `/readyz` say 503 while it still answers."""
        self._unready = True
        if self.current is not None:
            for worker in self.current_nodes()[self.current.plan.entry].ready_workers():
                worker.send(messages.Unready())

    def _needs(self, node: Node) -> set[Node]:
        return {
            needed
            for revision in node.revisions()
            for needed in self._needs_of(revision, node.plan.name)
        }

    def _needs_of(self, revision: Revision, name: str) -> set[Node]:
        """Return the nodes that workers of this one call, in a revision."""
        return {self.nodes_of(revision)[needed] for needed in revision.plan.node(name).needs()}

    def _check_pulses(self) -> None:
        for node in self.nodes:
            node.check_pulse()

    def _send_beats(self) -> None:
        for worker in self.processes():
            # it would only wait there for one that is stopped
            if worker.channel is not None and worker.channel.taken:
                worker.send(messages.Beat())

    def _close(self) -> None:
        self._pulse.cancel()
        if self._connections is not None:
            self._connections.close()
        self._roster.close()

    def look(self, suspect: str = "") -> None:
        """Have the run folder looked after, before something is started that needs it.

        Args:
            suspect: a socket that somebody could not connect to, although its owner is ready.
        """
        self._look(suspect)

    def restore(self) -> list[str]:
        """Make anew what others have removed of the run folder: Plans, the sockets of nodes and of
        their workers.

        Returns:
            The names of what was removed.

        Raises:
            OSError: it cannot be made.
        """
        restored = self._connections.restore() if self._connections is not None else []
        for revision in self._nodes_of:
            restored += revision.restore()
        for node in self.nodes:
            if node.phase is not NodePhase.STOPPED and (
                lost := node.restore(self.run / node.plan.id)
            ):
                restored += [
                    f"{os.path.relpath(path, self.run)} of {node.plan.name}" for path in lost
                ]
        return [*restored, *self._restore_public()]

    def _restore_public(self) -> list[str]:
        if not self.public.lost:
            return []
        with self.fallback.elsewhere():
            before = self.public.renew()
        for worker in self.processes():
            if worker.serves_public and worker.state is WorkerState.READY:
                worker.send(messages.ServePublic(), [self.public.sock.fileno()])
        before.close()
        return [str(self.public.path)]

    def suspect(self, address: str) -> list[str]:
        """Have a worker listen on its own socket anew if nobody can connect to it.

        A worker that dies refuses too, and callers may say so before we have noticed its death.

        Args:
            address: a socket that somebody could not connect to.

        Returns:
            The names of what was lost.
        """
        for node in self.nodes:
            for worker in node.ready_workers():
                if worker.address != address or not sockets.refuses(address):
                    continue
                if not is_dead(worker.pid):
                    worker.rebind()
                    return [f"{os.path.relpath(address, self.run)} of {node.plan.name}"]
        return []

    def _find(self, pid: int) -> WorkerProcess | None:
        return next((worker for worker in self.processes() if worker.pid == pid), None)

    def _say_uncounted(self, level: str, message: str) -> None:
        self.observer.log(happened(EventKind.METRICS_MISSING, level, message))

    def processes(self) -> list[WorkerProcess]:
        """Return all that live: workers of whatever revision, and fallback servers."""
        return [
            *(worker for node in self.nodes for worker in node.workers),
            *self.fallback.processes,
        ]

    def _on_message(self, worker: WorkerProcess, message: messages.ControlMessage) -> None:
        node = next(
            (node for node in self.nodes if node.pool.workers.get(worker.pid) is worker), None
        )
        if node is None:
            self.fallback.on_message(worker, message)
            return
        match message:
            case messages.Imported() if worker.state is WorkerState.SPAWNED:
                worker.enter(WorkerState.IMPORTED)
                worker.lift_limit()  # what it needs may be long in coming
                self._initialise()
            case messages.WarmingUp() if worker.state is WorkerState.STARTING:
                worker.begin_warm_up()
                self._show(node)
            case messages.Ready() if worker.state is WorkerState.STARTING:
                worker.listens_at(message.address)
                self._ready(node, worker)
            case messages.Bound():
                node.rebound(worker, message.trouble)
            case messages.Held() | messages.Answered():
                self.on_call(worker, message)
            case messages.Lost():
                self.look(message.path)
            case messages.Listening() if worker.state is WorkerState.OPENING:
                node.became_ready(worker)
                self.fallback.stand_down(worker)
            case messages.Failed():
                worker.ends_for(message.message, message.traceback)
            case messages.Draining() if worker.state.accepts:
                # somebody sent it SIGTERM by hand: another will take its place
                node.on_draining(worker)
            case messages.HealthReport():
                if words := node.on_health(worker, message):
                    self.rollouts[node].recycle(worker, words)
                self.fallback.stand_down(worker)
            case messages.Drained():
                worker.drained.set()

    def _ready(self, node: Node, worker: WorkerProcess) -> None:
        if node.plan.name != worker.revision.plan.entry:
            node.became_ready(worker)
        elif not (worker.retired or node.stopping or self.public.closed):
            if self._unready:  # first: what it accepts may ask at once
                worker.send(messages.Unready())
            worker.open_port(self.public.sock.fileno())

    def on_call(self, worker: WorkerProcess, message: messages.Held | messages.Answered) -> None:
        """Have the quarantine of a node know what one of its callers says of a call: of a node of
        its own revision.
        """
        callee = self.nodes_of(worker.revision).get(message.node)
        if callee is None:
            return
        if isinstance(message, messages.Held):
            callee.quarantine.held(message.call, message.kills)
        else:
            callee.quarantine.answered(message.call)

    def _tell_suspects(self, node: Node) -> None:
        """Tell who calls a node, and its own workers, which of its calls kill workers."""
        message = node.quarantine.message()
        if message is not None:
            for worker in self.processes():
                if (
                    self.nodes_of(worker.revision).get(node.plan.name) is node
                    and worker.state.listens
                ):
                    worker.send(message)

    def _initialise(self) -> None:
        """Let workers initialise that have imported their modules, if what they need is ready."""
        for node in self.nodes:
            for worker in node.workers:
                nodes = self.nodes_of(worker.revision)
                required = worker.revision.plan.node(node.plan.name).requires()
                needs = [nodes[name] for name in required]
                if worker.state is WorkerState.IMPORTED:
                    worker.timing.waited_for = awaited(worker, needs)
                if worker.state is WorkerState.IMPORTED and all(map(callable_now, needs)):
                    revision = worker.revision
                    members = messages.Members(
                        tuple(other.news() for other in self.nodes_of(revision).values())
                    )
                    node.send_init(
                        worker, members, revision.init_of(node.plan, tuple(node.sockets))
                    )
                    for other in self.nodes_of(revision).values():
                        if (wary := other.quarantine.message()) is not None:
                            worker.send(wary)

    def _changed(self, node: Node) -> None:
        message = messages.Members((node.news(),))
        for worker in self.processes():
            # Two nodes of one name may live while the graph changes: each caller hears of its own.
            hears = self.nodes_of(worker.revision).get(node.plan.name) is node
            if hears and worker.state.listens:
                worker.send(message)
        self.fallback.check()
        self._show(node)
        self._wake_waiters()
        self._initialise()
        self.sweep()

    def _wake_waiters(self) -> None:
        self._progressed.set()
        self._progressed = asyncio.Event()

    def _show(self, node: Node) -> None:
        shown = (
            node.shown,
            min(len(node.ready_workers()), node.plan.workers),
            node.plan.workers,
            node.warms_up,
        )
        if node.shows and self._shown.get(node.plan.name) != shown:
            _, ready, workers, _ = self._shown.get(node.plan.name, shown)
            if ready == workers and node.started.is_set():
                # it was whole; from here on it is told how long it takes to be so again
                node.became_incomplete()
            self._shown[node.plan.name] = shown
            seconds = asyncio.get_running_loop().time() - node.incomplete_since
            self.observer.node(NodeState(node.plan.name, *shown[:3], seconds, shown[3]))


def awaited(worker: WorkerProcess, needs: Collection[Node]) -> str | None:
    """Return which of the nodes that it needs a worker waits for, or waited for last."""
    missing = next((node for node in needs if not callable_now(node)), None)
    last = missing or max(needs, key=lambda node: node.callable_since, default=None)
    since = worker.timing.imported or 0.0
    return last.plan.name if last is not None and (missing or last.callable_since > since) else None


def callable_now(node: Node) -> bool:
    """Return whether callers of this node may initialise: all its workers were ready at the start,
    and one is; or it is failed, and refuses their calls.
    """
    return node.phase is NodePhase.FAILED or (node.started.is_set() and bool(node.ready_workers()))
