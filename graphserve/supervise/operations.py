"""Operations: what changes a graph while it runs, one at a time: reload, scale, restart.

Runs in the supervisor.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import replace
from itertools import groupby
from typing import NamedTuple

from graphserve.config import Config, Secrets
from graphserve.errors import ConfigurationError, GraphError, GraphServeError, StartupError, closest
from graphserve.graph.plan import NodePlan, Plan, Resolution
from graphserve.graph.resolver import require
from graphserve.supervise.events import SHOWN_OTHERWISE, EventKind, Say, log_of
from graphserve.supervise.fleet import Fleet
from graphserve.supervise.node import Node
from graphserve.supervise.revision import Revision, same
from graphserve.supervise.rollout import Progress
from graphserve.supervise.timing import timed
from graphserve.supervise.waiting import together


class OperationWords(NamedTuple):
    """How an operation is spoken of, and which events it makes."""

    doing: str
    done: str
    begins: EventKind
    ends: EventKind
    fails: EventKind


WORDS = {
    "reload": OperationWords(
        "reloading",
        "reloaded",
        EventKind.RELOAD_BEGUN,
        EventKind.RELOAD_DONE,
        EventKind.RELOAD_FAILED,
    ),
    "scale": OperationWords(
        "scaling", "scaled", EventKind.SCALE_BEGUN, EventKind.SCALE_DONE, EventKind.SCALE_FAILED
    ),
    "restart": OperationWords(
        "restarting",
        "restarted",
        EventKind.RESTART_BEGUN,
        EventKind.RESTART_DONE,
        EventKind.RESTART_FAILED,
    ),
}


class OperationRefused(GraphServeError):
    """Raised for an operation that cannot begin.

    Args:
        message: why, and what to do.
        status: the HTTP status that stands for it.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclasses.dataclass(frozen=True)
class Failure:
    """An operation that failed, and was not done since.

    Args:
        operation: `reload`, `scale` or `restart`.
        at: when, in seconds since the epoch.
        reason: why, as its user was told.
        revision: the revision that serves on.
        changed: the nodes that had changed over before, and run the new code.
    """

    operation: str
    at: float
    reason: str
    revision: int
    changed: tuple[str, ...] = ()


class Operations:
    """The operations on one graph.

    Args:
        fleet: what runs.
        config: what it was started from.
        resolve: resolves a configuration.
        reread: reads the configuration again; without it, it stays as it is.
        say: takes what is to be said.
    """

    def __init__(
        self, fleet: Fleet, config: Config, resolve: Callable[[Config], Awaitable[Resolution]],
        reread: Callable[[], Config] | None, say: Say,
        under_reload: Callable[[], contextlib.AbstractContextManager[None]],
    ) -> None:  # fmt: skip
        self._say = say
        self._under_reload = under_reload
        self.fleet = fleet
        self.config = config
        self._resolve = resolve
        self._reread = reread
        self.running = ""  # what is under way
        self.failures: dict[str, Failure] = {}  # by operation: those that failed last
        # for which nodes
        self._resolving: tuple[Collection[str], asyncio.Future[Resolution]] | None = None
        self._superseded = False
        self._rolled: list[str] = []  # nodes of which the reload under way has replaced a worker
        self._one_at_a_time = asyncio.Lock()

    async def reload(
        self, names: Collection[str] = (), progress: Progress = lambda words: None
    ) -> bool:
        """Resolve the code as it is now, and change to it.

        Args:
            names: the nodes to reload; empty: the graph, whatever has become of it.
            progress: told of each worker that is replaced.

        Raises:
            OperationRefused: there is no such node, or more has changed than these hold.
            GraphServeError: the new code cannot be resolved or does not start; the old code serves
                on.
        """
        nodes = self._nodes(names)
        if self._resolving is not None and self.gives_way(names):
            self._superseded = True
            self._resolving[1].cancel()
        async with self._alone("reload", names):
            with self._under_reload(), timed(self.fleet.timings):
                config, plan = await self._now(names)
                self.fleet.timings.resolved()
                if names and (
                    others := beyond(
                        {node.plan.name: node.plan for node in self._all()}, plan, names
                    )
                ):
                    raise OperationRefused(
                        f"the graph itself has changed, at {', '.join(others)}: "
                        "reload all of it with `graphserve reload`",
                        409,
                    )
                reload = Reload(self.fleet, self._kept(progress))
                self._rolled = reload.rolled
                try:
                    await reload.run(
                        plan,
                        config.env,
                        config.secrets,
                        [node.plan.name for node in nodes if names],
                    )
                except StartupError as exc:
                    raise StartupError(
                        f"{exc}\n{self._what_now(reload.rolled)}", exc.node, exc.log
                    ) from exc
                self.config = config
        return True

    async def scale(self, sizes: Mapping[str, int], progress: Progress) -> None:
        """Change how many workers nodes have.

        Raises:
            OperationRefused: there is no such node.
            StartupError: a new worker did not become ready; its node has as many as before.
        """
        nodes = self._nodes(sizes)
        async with self._alone("scale", [f"{name}={workers}" for name, workers in sizes.items()]):
            for node in nodes:
                await self.fleet.rollouts[node].resize(sizes[node.plan.name], self._kept(progress))

    async def restart(self, names: Collection[str], progress: Progress) -> None:
        """Replace workers by others of the same Plan, leaves first; nothing is resolved.

        Raises:
            OperationRefused: there is no such node.
            StartupError: a new worker did not become ready.
        """
        nodes = self._nodes(names)
        async with self._alone("restart", names):
            for node in nodes:
                await self.fleet.rollouts[node].restart(self._kept(progress))

    def _kept(self, progress: Progress) -> Progress:
        """Return what tells of each step, and keeps it as an event."""

        def step(words: str) -> None:
            self._say(EventKind.ROLLOUT_STEP, SHOWN_OTHERWISE, words)
            progress(words)

        return step

    def gives_way(self, names: Collection[str]) -> bool:
        """Return whether a reload of these nodes (none: of all) may take the place
        of what is under way.

        It may while modules are imported, which may hang and has changed nothing yet, if it does
        all that was asked.
        """
        if self._resolving is None:
            return False
        begun, _ = self._resolving
        return not names or (bool(begun) and set(begun) <= set(names))

    async def _now(self, names: Collection[str]) -> tuple[Config, Plan]:
        """Return what files and environment say now, and the Plan of the code as it is now."""
        failed = "nothing has changed"
        try:
            config = self._config_now()
            entry = self.fleet.current.plan.entry if self.fleet.current is not None else ""
            if not names or entry in names:
                await self._check_certificate(config)
            failed = "the new code did not start"
            return config, require(await self._resolved(config, names))
        except (ConfigurationError, StartupError) as exc:
            raise GraphError(f"{exc}\n{self._what_now([], failed)}", log_of(exc)) from exc

    async def _check_certificate(self, config: Config) -> None:
        """Ask of the TLS files what is asked before a start:
        workers would take one that has expired.

        Raises:
            ConfigurationError: they cannot be used. Workers go on with what they have read.
        """
        tls = config.settings.listen.tls
        if tls is None:
            return
        # brings ssl along, which few graphs need here
        from graphserve.config.certificate import certificate

        found = await asyncio.to_thread(lambda: list(certificate(tls, config.keyfile_password)))
        for trouble in found:
            if trouble.warning:
                self._say(EventKind.CERTIFICATE_TROUBLE, "warning", trouble.message)
        if problems := [trouble.message for trouble in found if not trouble.warning]:
            raise ConfigurationError("; ".join(problems))

    async def _resolved(self, config: Config, names: Collection[str]) -> Resolution:
        work = asyncio.ensure_future(self._resolve(config))
        self._resolving = (names, work)
        self._superseded = False
        try:
            return await work
        except asyncio.CancelledError:
            if not self._superseded:
                raise
            raise OperationRefused("given up: another reload takes its place", 409) from None
        finally:
            self._resolving = None

    @contextlib.asynccontextmanager
    async def _alone(self, name: str, what: Collection[str]) -> AsyncIterator[None]:
        async with self._one_at_a_time:
            self.running = name
            began = time.monotonic()
            self._rolled = []
            words = WORDS[name]
            self._say(words.begins, "info", f"{words.doing} {', '.join(what)}".rstrip())
            try:
                yield
            except (GraphServeError, OSError) as exc:
                if not isinstance(exc, OperationRefused):
                    number = self.fleet.current.number if self.fleet.current is not None else 0
                    self.failures[name] = Failure(
                        name, time.time(), str(exc), number, tuple(self._rolled)
                    )
                self._say(words.fails, "error", f"{name} failed: {exc}", log_of(exc))
                raise
            except Exception as exc:  # a bug of ours: it shall be seen
                said = f"{name} failed by a bug of graphserve, please report it: {exc!r}"
                self._say(words.fails, "critical", said, traceback.format_exc())
                raise
            finally:
                self.running = ""
            if name == "reload" and not what:
                self.failures.clear()  # every worker is of the files as they are now
            self.failures.pop(name, None)
            self._say(words.ends, "info", f"{words.done} in {time.monotonic() - began:.2f} s")

    def _all(self) -> list[Node]:
        return list(self.fleet.current_nodes().values())

    def _nodes(self, names: Collection[str]) -> list[Node]:
        known = {node.plan.name: node for node in self._all()}
        for name in names:
            if name not in known:
                guess = closest(name, list(known))
                hint = f"did you mean {guess!r}?" if guess else f"nodes are {', '.join(known)}"
                raise OperationRefused(f"there is no node {name!r}; {hint}", 404)
        return [known[name] for name in names] if names else list(known.values())

    def _what_now(self, rolled: list[str], failed: str = "the new code did not start") -> str:
        """Return what serves after a reload that failed."""
        down = [node.plan.name for node in self._all() if not node.ready_workers()]
        failed += " there" if rolled else ""
        if down and len(down) == len(self._all()):
            return f"{failed}, and no worker of the old code is ready"
        words = f"{failed}; the old code goes on serving"
        if rolled:
            words += (
                f", except for {', '.join(rolled)}, which had changed over before and run the new"
                " code"
            )
        return words + (f"; no worker of {', '.join(down)} is ready" if down else "")

    def _config_now(self) -> Config:
        """Return the configuration as files and environment say it now;
        where the graph listens stays.
        """
        if self._reread is None:
            return self.config
        new, old = self._reread(), self.config.settings.listen
        listen = new.settings.listen
        tls = listen.tls if (listen.tls is None) == (old.tls is None) else old.tls
        listen = dataclasses.replace(
            listen, host=old.host, port=old.port, uds=old.uds, backlog=old.backlog, tls=tls
        )
        password = new.keyfile_password or self.config.keyfile_password
        settings = dataclasses.replace(new.settings, listen=listen)
        return dataclasses.replace(
            self.config,
            settings=settings,
            keyfile_password=password,
            api_keys=new.api_keys,
            # (the port stays as it is: it does without keys only if it did before)
            admin_keys=new.admin_keys or self.config.admin_keys,
            env=new.env,
        )


class Reload:
    """One reload: the graph becomes another revision of itself, worker by worker, without loss.

    New nodes start first. Then the others are rolled, leaves first, the nodes of one level side by
    side; the entry comes last. Nodes that nobody needs any more drain when those that call them are
    gone. So no call meets an API that is not there (decision record 0010).

    Args:
        fleet: what runs.
        progress: told of each worker that is replaced.
    """

    def __init__(self, fleet: Fleet, progress: Progress) -> None:
        self.fleet = fleet
        self._say = progress
        self.rolled: list[str] = []  # nodes of which at least one worker runs the new code

    async def run(
        self,
        plan: Plan,
        extra: Mapping[str, str],
        secrets: Secrets,
        only: Collection[str] = (),
    ) -> None:
        """Bring the graph to a Plan; returns when all of it is the new revision, while old workers
        may still drain.

        Args:
            plan: what shall run.
            extra: what `--env-file` says.
            secrets: for workers of the entry (see `Revision`).
            only: the nodes to roll; empty: all.

        Raises:
            StartupError: a new worker did not become ready. Nodes that were new are gone again, and
                what was not rolled yet is as it was.
        """
        fleet = self.fleet
        before = set(fleet.nodes)
        try:
            revision = fleet.add_revision(plan, extra, secrets)
            nodes = fleet.nodes_of(revision)
            entry = nodes[plan.entry]
            new = [node for node in nodes.values() if node not in before]
            await fleet.bring_up([node for node in new if node is not entry])
            for each in new:  # also those that only have another `init`
                if each is not entry:
                    self._started(each)
            old = [node for node in revision.plan.nodes if nodes[node.name] in before]
            for _, level in groupby(old, key=lambda node: node.level):
                rolling = [node for node in level if not only or node.name in only]
                await together(self._roll(nodes[node.name], node, revision) for node in rolling)
            if entry in new:
                await fleet.bring_up([entry])
                self._started(entry)
        except BaseException:
            fleet.abandon_incoming()
            await fleet.ended(node for node in fleet.nodes if node not in before)
            raise
        fleet.adopt(revision)

    def _started(self, node: Node) -> None:
        self._say(f"{node.plan.name} {len(node.ready_workers())}/{node.plan.workers} started")

    async def _roll(self, node: Node, plan: NodePlan, revision: Revision) -> None:
        def progress(words: str) -> None:
            if plan.name not in self.rolled:
                self.rolled.append(plan.name)
            self._say(words)

        await self.fleet.rollouts[node].roll(plan, revision, progress)


def beyond(running: Mapping[str, NodePlan], plan: Plan, names: Collection[str]) -> list[str]:
    """Return the nodes that are not as they run, although they are not among `names`, or not for
    those that call them.
    """
    new = {node.name: node for node in plan.nodes}
    return sorted(
        {*(running.keys() ^ new.keys())}
        | {name for name in running.keys() & new.keys()
           if not (same if name in names else _equal)(running[name], new[name])}
    )  # fmt: skip


def _equal(old: NodePlan, new: NodePlan) -> bool:
    """Return whether nothing was changed but by `graphserve scale`."""
    return replace(old, id="", level=0, workers=0) == replace(new, id="", level=0, workers=0)
