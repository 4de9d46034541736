"""A revision of the graph: a Plan that workers start from. Runs in the supervisor.

A reload makes a new one. Nodes outlive revisions; the fleet knows which nodes are of which.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

from graphserve.config import Secrets
from graphserve.declare.options import ENTRY_TIMEOUT, ServiceOptions
from graphserve.graph.plan import NodePlan, Plan, Settings
from graphserve.supervise.process.environment import Environment
from graphserve.system.messages import Init
from graphserve.system.rundir.cleanup import remove_revision
from graphserve.system.rundir.paths import file_identity, plan_file
from graphserve.wire.api_keys import read_key

# the number of the revision that holds only what is known before modules are imported
PROVISIONAL = 0


class Revision:
    """A Plan on disk.

    Args:
        number: counts the reloads, from 1; or `PROVISIONAL`.
        plan: what to run.
        run: the run folder.
        environment: of its workers.
        secrets: what workers of the entry need, and no file may hold.
        configured: by node name, the workers that the configuration asks for (`plan` has those of
            `graphserve scale`).

    Raises:
        ConfigurationError: an API key for a service elsewhere cannot be read.
    """

    def __init__(
        self,
        number: int,
        plan: Plan,
        run: Path,
        environment: Environment,
        secrets: Secrets,
        configured: Mapping[str, int],
    ) -> None:
        self.number = number
        self.plan = plan
        self.environment = environment
        self.secrets = secrets
        self.configured = configured
        # of edges to services elsewhere, by node and `EdgePlan.place`
        self._edge_keys = {node.name: _keys_of(node) for node in plan.nodes}
        self._run = run
        self._file = plan_file(run, number)
        self._file.parent.mkdir(mode=0o700)
        self._write()

    def restore(self) -> list[str]:
        """Write the Plan again if others have removed it; returns its name then.

        Raises:
            OSError: it cannot be written.
        """
        if file_identity(self._file) == self._identity:
            return []
        self._file.parent.mkdir(mode=0o700, exist_ok=True)
        self._file.unlink(missing_ok=True)
        self._write()
        return [f"{self.number}/{self._file.name}"]

    def _write(self) -> None:
        with open(os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(self.plan.to_json())
        self._identity = file_identity(self._file)

    @property
    def is_provisional(self) -> bool:
        """Return whether it was made before there was a Plan."""
        return self.number == PROVISIONAL

    def env(self, node: NodePlan, slot: int) -> dict[str, str]:
        """Return the environment of a worker."""
        if node.options.gpus and slot >= self.plan.node(node.name).workers:  # it was scaled
            nodes = (
                dataclasses.replace(each, workers=node.workers) if each.name == node.name else each
                for each in self.plan.nodes
            )
            self.environment.fit(dataclasses.replace(self.plan, nodes=tuple(nodes)))
        return self.environment.of(node, slot)

    def init_of(self, node: NodePlan, listeners: tuple[str, ...]) -> Init:
        """Return what the workers of a node are told when they may initialise; no file may hold the
        secrets in it.
        """
        urls = self.plan.node(node.name).secret_urls()
        at_port = node.name == self.plan.entry
        return self.init(listeners, urls, self._edge_keys[node.name], at_port=at_port)

    def init(
        self,
        listeners: tuple[str, ...],
        urls: dict[str, str],
        edge_keys: dict[str, str] | None = None,
        *,
        at_port: bool,
        resolving: bool = False,
    ) -> Init:
        """Return the message with what a process needs; who serves the port gets what that
        needs.
        """
        keys = self.secrets.api_keys if at_port else None
        return Init(
            listeners,
            self.secrets.keyfile_password if at_port else None,
            urls,
            resolving,
            {} if keys is None else keys.names,
            None if keys is None else keys.salt,
            edge_keys or {},
        )

    def remove(self) -> None:
        """Remove its file: no worker reads it any more."""
        remove_revision(self._run, self.number)


def _keys_of(node: NodePlan) -> dict[str, str]:
    return {
        edge.place: read_key(edge.api_key_file, f"{node.name}.{edge.place}", edge.node)
        for edge in node.edges
        if edge.api_key_file is not None
    }


def provisional_plan(settings: Settings) -> Plan:
    """Return what is known of a graph before its modules are imported: where it listens, and what
    its entry may be called.

    The entry has no APIs in it, and the event loop is one that is installed: whether the one that
    was asked for is, the resolver finds out.
    """
    name = settings.target.rpartition(":")[2]
    timeout = ENTRY_TIMEOUT if settings.timeout is None else settings.timeout
    entry = NodePlan(name, "n", settings.target, 0, 1, 1, ServiceOptions(timeout=timeout))
    return Plan(
        name,
        (entry,),
        listen=settings.listen,
        loop="auto" if settings.loop == "uvloop" else settings.loop,
        access_log=settings.access_log,
        metrics=settings.metrics,
        log_level=settings.log_level,
        debug=settings.debug,
    )


def same(old: NodePlan, new: NodePlan) -> bool:
    """Return whether callers of the one can call the other: its workers can then be replaced one by
    one.
    """
    return _interface(old) == _interface(new)


def _interface(node: NodePlan) -> tuple[object, ...]:
    apis = [
        (
            api.name,
            api.route,
            api.public_path,
            api.methods,
            api.body,
            api.parameters,
            api.positional,
            api.lane,
            api.stream,
            api.input_stream,
            api.batch is None,
            api.fingerprint,
        )
        for api in node.apis
    ]
    return node.name, node.target, node.init, apis
