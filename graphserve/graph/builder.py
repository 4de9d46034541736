"""From classes to the Plan: walks the services from the entry, checks what it finds, and describes
the APIs of each.

Runs in a short-lived child process (see `child.py`; `resolver.py` calls it): it imports user code.
"""

from __future__ import annotations

import graphlib
import importlib.util
import inspect
import itertools
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from graphserve.declare.declaration import ApiDeclaration, apis, declaration, sockets
from graphserve.declare.dependency import Dependency, dependencies
from graphserve.declare.misplaced import strays
from graphserve.declare.options import ENTRY_TIMEOUT, ServiceOptions
from graphserve.declare.routes import CALLS, names_in
from graphserve.errors import ConfigurationError, CycleError, GraphError, closest
from graphserve.graph.checks import instance_problems, name_of, unused
from graphserve.graph.importer import MAIN, Target, arguments, explained, load, module_of, parse
from graphserve.graph.mounts import problem as mount_problem
from graphserve.graph.plan import (
    ApiPlan,
    EdgePlan,
    NodePlan,
    Plan,
    Resolution,
    Settings,
    SocketPlan,
    Trouble,
)
from graphserve.graph.resolver import CUT_OFF, require
from graphserve.isolation import forked, prompts
from graphserve.isolation.restore import Steady
from graphserve.logs.tracebacks import formatted
from graphserve.system import machine
from graphserve.system.child_process import begin_collecting, die_with_parent
from graphserve.system.process_title import name_process
from graphserve.wire.init_arguments import init_problems, read_configured
from graphserve.wire.signature import Signature
from graphserve.wire.signature_fingerprint import fingerprint

CALLING_LIMIT = 16  # calls at once in a worker whose node mostly waits for others


@dataclass
class _Found:
    """A node while the graph is walked."""

    name: str
    cls: type
    target: str
    init: dict[str, object]
    where: str
    made_of: object  # the class, or what overrides it: another class, or a ready object
    undeclared: bool  # an override that is not a service: no dependencies, and made without init
    given: dict[str, str] = field(default_factory=dict)  # by argument that is not of `depends`
    edges: list[EdgePlan] = field(default_factory=list)


def resolve(settings: Settings, steady: Steady | None = None) -> Resolution:
    """Import the target, walk its graph, and make the Plan; reports every trouble it can find.

    Args:
        settings: what to resolve.
        steady: puts right what modules change in this process.
    """
    return _Builder(settings, steady=steady).run()


def resolve_here(
    entry: type, replace: Mapping[type, object]
) -> tuple[Plan, dict[str, tuple[type, object]]]:
    """Return the Plan of a graph whose nodes all run in this process, and what each is made of.

    Args:
        entry: the service class; it need not be importable by name.
        replace: what overrides a service class: another class, or a ready object.

    Returns:
        The Plan, and by node name the class that has the signatures and what is instantiated.

    Raises:
        GraphError: the services do not form a graph, or a class in `replace` is not in it.
    """
    builder = _Builder(Settings(target=""), replace)
    resolution = builder.run_here(entry)
    return require(resolution), {
        name: (node.cls, node.made_of) for name, node in builder.found.items()
    }


class _Builder:
    """Walks one graph from its entry, collects what is wrong with it, and makes its Plan."""

    def __init__(
        self,
        settings: Settings,
        replace: Mapping[type, object] | None = None,
        steady: Steady | None = None,
    ) -> None:
        self.settings = settings
        self.steady = steady
        self.replace = replace  # None: the nodes are to run in processes of their own
        self.folder = os.path.abspath(settings.app_dir or os.getcwd())
        self.troubles: list[Trouble] = []
        self.found: dict[str, _Found] = {}
        self.replaced: set[type] = set()
        self.places: dict[tuple[str, str], str] = {}  # by caller and callee, of the depends(...)
        self.paths = [*settings.sys_path]
        self.own_path = sys.path[:]  # before there are folders of the user's in it
        self.argv: tuple[str, ...] = ()

    def run(self) -> Resolution:
        """Import the target that the settings name, and resolve its graph."""
        for path in reversed(self.settings.sys_path):
            if path not in sys.path:
                sys.path.insert(0, path)
        self.argv = self.settings.argv
        return self._resolve(self._entry())

    def run_here(self, cls: type) -> Resolution:
        """Resolve the graph of a class that is at hand.

        Raises:
            GraphError: the class is not a service.
        """
        if (spec := declaration(cls)) is None:
            raise GraphError(
                f"{name_of(cls)} is not a service: decorate its class with @service, and give the"
                " class"
            )
        return self._resolve(self._add(self._found(spec.name, cls, {}, f"{spec.file}:{spec.line}")))

    def _found(self, name: str, cls: type, init: dict[str, object], where: str) -> _Found:
        made_of = (self.replace or {}).get(cls, cls)
        # An override that is a service brings its own signatures and dependencies; any other only
        # its methods.
        declared = cls
        if isinstance(made_of, type) and declaration(made_of) is not None:
            declared = made_of
        if cls not in self.replaced and (
            lacks := [name for name in apis(cls) if name not in apis(declared)]
        ):
            what = f"{declared.__name__} overrides {cls.__name__}"
            self._trouble(
                f"{what}, but has no API {lacks[0]!r}: an override that is a service has them all,"
                " with @api"
            )
        self.replaced.add(cls)
        target = self._name_of(declared, where)
        undeclared = made_of is not declared
        found = _Found(name, declared, target, init, where, made_of, undeclared)
        self._configure(found)
        return found

    def _configure(self, node: _Found) -> None:
        """Add the arguments of `__init__` that flags, variables and files give."""
        changes = self.settings.options.get(node.name, {}).get("init")
        if isinstance(changes, dict):
            source = self.settings.sources.get(f"set {node.name}", "--set")
            node.given = {name: f"{source} {node.name}.init.{name}" for name in changes}
            node.init = {**node.init, **read_configured(node.cls, changes)}

    def _resolve(self, entry: _Found | None) -> Resolution:
        plan = None
        if entry is not None:
            self._walk(entry)
            order = self._order()
            self._check_names()
            for problem in unused(self.replace or {}, self.replaced):
                self._trouble(problem)
            self._check_places()
            nodes = tuple(
                self._node(index, name, level) for index, (name, level) in enumerate(order)
            )
            if all(trouble.warning for trouble in self.troubles):
                plan = self.settings.plan(
                    entry.name, nodes, sys_path=tuple(dict.fromkeys(self.paths)), argv=self.argv
                )
        return Resolution(plan, tuple(self.troubles))

    # --- walking ---

    def _entry(self) -> _Found | None:
        try:
            target = parse(self.settings.target, self.folder)
            self.argv = self.argv or tuple(arguments(target))
            sys.argv[:] = self.argv
            cls = self._import(target)
            spec = declaration(cls)
            assert spec is not None
            return self._add(self._found(spec.name, cls, {}, f"{spec.file}:{spec.line}"))
        except _Refused:
            return None
        except ConfigurationError as exc:
            self._trouble(str(exc))
            return None

    def _walk(self, entry: _Found) -> None:
        waiting, seen = [entry], {entry.name}
        while waiting:
            node = waiting.pop(0)
            for dependency in () if node.undeclared else dependencies(node.cls).values():
                try:
                    found = self._follow(node, dependency)
                except _Refused:
                    continue
                for below in found:
                    if below.name not in seen:
                        seen.add(below.name)
                        waiting.append(below)

    def _follow(self, node: _Found, dependency: Dependency) -> list[_Found]:
        """Add the edges of a dependency, and return the nodes that it leads to."""
        where = "{}:{}".format(*dependency.place)
        cls = dependency.target
        if isinstance(cls, str):
            # nothing of the class matters then
            plain = bool(dependency.urls) and dependency.client != "typed"
            cls = None if plain else self._import(parse(cls, self.folder), where)
        if dependency.urls and cls not in (self.replace or {}):
            for key, url in dependency.urls.items():
                node.edges.append(self._elsewhere(dependency, cls, where, key, url))
            return []
        spec = declaration(cls)
        assert cls is not None and spec is not None
        at, typed = dependency.attribute, not isinstance(dependency.target, str)
        found = []
        for key, init in dependency.inits.items():
            name = dependency.name or spec.name
            if key is not None:
                name = f"{name}-{key}"
            below = self._add(self._found(name, cls, init, where))
            self.places.setdefault((node.name, below.name), where)
            node.edges.append(
                EdgePlan(
                    at,
                    below.name,
                    dependency.client,
                    dependency.timeout,
                    typed=typed,
                    key=key,
                    attempts=dependency.attempts,
                    optional=dependency.optional,
                )
            )
            found.append(below)
        return found

    def _elsewhere(
        self, dependency: Dependency, cls: type | None, where: str, key: str | None, url: str
    ) -> EdgePlan:
        # by import string: only we look at the class, not the caller
        typed = isinstance(dependency.target, type)
        target = self._name_of(cls, where) if cls is not None and typed else None
        signatures = () if cls is None else self._apis(cls, ServiceOptions())
        spec = declaration(cls)
        name = dependency.name or (spec.name if spec else dependency.attribute)
        if key is not None:
            name = f"{name}-{key}"
        return EdgePlan(
            dependency.attribute, name, dependency.client, dependency.timeout, url,
            typed=typed, target=target, apis=signatures, key=key,
            api_key_file=dependency.key_files.get(key),
        )  # fmt: skip

    def _add(self, node: _Found) -> _Found:
        known = self.found.setdefault(node.name, node)
        if known is node:
            problems = list(
                instance_problems(
                    node.made_of, dict(node.init), node.given, undeclared=node.undeclared
                )
            )
            if not problems and not node.undeclared and isinstance(node.made_of, type):
                problems = init_problems(node.made_of, node.init, node.given)
            for problem in problems:
                self._trouble(f"{node.where}: {node.name}: {problem}")
        elif known.cls is not node.cls or known.init != node.init:
            modules = {module_of(known.cls), module_of(node.cls)}
            if (
                MAIN in modules
                and len(modules) == 2
                and declaration(known.cls) == declaration(node.cls)
            ):
                self._trouble(
                    f"{node.cls.__name__!r} is a class of the script that runs and of the module"
                    f" {min(modules - {MAIN})!r}, which are one file: put services that others"
                    " import in another one"
                )
                return known
            differ = (
                "the same class"
                if known.cls is not node.cls
                else f"the same init ({known.init} and {node.init})"
            )
            self._trouble(
                f"two nodes have the name {node.name!r} but not {differ}: {known.where} and"
                f" {node.where}. "
                f'Give one of them a name of its own: depends({node.cls.__name__}, name="…")'
            )
        return known

    def _import(self, target: Target, where: str = "") -> type:
        prefix = f"{where}: " if where else ""
        try:
            try:
                cls = load(target, self.settings.main)
            finally:
                if self.steady is not None:
                    self.steady.restore()
        except BaseException as exc:  # user code may raise anything, SystemExit included
            ours = isinstance(exc, ConfigurationError)
            message = str(exc) if ours else f"importing {target.module!r} raised {explained(exc)}"
            self._trouble(prefix + message, "" if ours else formatted(exc))
            raise _Refused from None
        if target.folder:
            self.paths.append(target.folder)
        return cls

    def _name_of(self, cls: type, where: str) -> str:
        module = module_of(cls)
        if (
            self.replace is None
            and getattr(sys.modules.get(module), cls.__qualname__, None) is not cls
        ):
            self._trouble(
                f"{where}: {cls.__qualname__} cannot be imported by name: define it at the top of a"
                " module"
            )
            raise _Refused
        return f"{module}:{cls.__qualname__}"

    # --- checking ---

    def _order(self) -> list[tuple[str, int]]:
        """Return the nodes with their levels: whoever is called stands before its callers."""
        below = {
            node.name: [edge.node for edge in node.edges if edge.url is None]
            for node in self.found.values()
        }
        sorter = graphlib.TopologicalSorter(below)
        try:
            sorter.prepare()
        except graphlib.CycleError as exc:
            path = self._cycle(below) or tuple(exc.args[1])
            places = tuple(self.places.get(step, "?") for step in itertools.pairwise(path))
            self._trouble(str(CycleError(path, places)), cycle=path, places=places)
            return [(name, 0) for name in self.found]
        order: list[tuple[str, int]] = []
        for level in itertools.count():
            names = sorter.get_ready()
            if not names:
                break
            order += [(name, level) for name in sorted(names)]
            sorter.done(*names)
        return order

    def _cycle(self, below: Mapping[str, list[str]]) -> tuple[str, ...]:
        """Return the first circle that is found from the entry on; empty if networkx cannot be
        imported.
        """
        changed = sys.path[:]
        # a queue.py of the user's must not stand in for the standard library's
        sys.path[:] = self.own_path
        try:
            # only now: it costs as much as everything else that a resolver of ours imports
            import networkx
        # it does already, and has not what networkx needs: the circle is told in another order then
        except Exception:
            return ()
        finally:
            sys.path[:] = changed
        cycle = networkx.find_cycle(networkx.DiGraph(below))
        return (*(edge[0] for edge in cycle), cycle[0][0])

    def _check_names(self) -> None:
        for flag, names in (("scale", self.settings.scale), ("set", self.settings.options)):
            for name in [name for name in names if name not in self.found]:
                guess = closest(name, list(self.found))
                hint = f"did you mean {guess!r}?" if guess else f"nodes are {', '.join(self.found)}"
                where = self.settings.sources.get(f"{flag} {name}", f"--{flag}")
                self._trouble(f"{where}: there is no node {name!r}; {hint}")

    def _check_places(self) -> None:
        """Report each `depends(...)` that is no class attribute: an edge that somebody meant, and
        that is in no graph.
        """
        specs = [declaration(node.cls) for node in self.found.values()]
        files = {spec.file for spec in specs if spec is not None}
        spared = [*(self.replace or {}).values()]
        for problem in strays(files, everywhere=self.replace is None, spared=spared):
            self._trouble(problem)

    def _options(self, node: _Found) -> ServiceOptions:
        settings, spec = self.settings, declaration(node.cls)
        assert spec is not None
        changes: dict[str, object] = dict(settings.options.get(node.name, {}))
        changes.pop("init", None)  # for `__init__`; it is no option
        for name in ("startup_timeout", "graceful_timeout"):
            if getattr(settings, name) is not None:
                changes.setdefault(name, getattr(settings, name))
        if node.name in settings.scale:
            changes["workers"] = settings.scale[node.name]
        if node is next(iter(self.found.values())):  # the entry
            if settings.workers is not None:
                changes["workers"] = settings.workers
            given = settings.timeout if settings.timeout is not None else spec.options.timeout
            changes.setdefault("timeout", ENTRY_TIMEOUT if given is None else given)
        try:
            return spec.options.merged(changes, f"--set {node.name}")
        except ConfigurationError as exc:
            self._trouble(str(exc))
            return spec.options

    def _node(self, index: int, name: str, level: int) -> NodePlan:
        node = self.found[name]
        options = self._options(node)
        calls = bool(node.edges) or (node.undeclared and bool(dependencies(node.cls)))
        return NodePlan(
            name=name,
            id=f"n{index}",
            target=node.target,
            level=level,
            workers=machine.cpus() if options.workers == "cpus" else options.workers,
            limit=options.concurrency or (CALLING_LIMIT if calls else 1),
            options=options,
            init=node.init,
            apis=self._apis(node.cls, options),
            edges=tuple(node.edges),
            sockets=self._sockets(node),
            mounts=self._mounts(node),
            middleware=self._has_middleware(node),
        )

    def _has_middleware(self, node: _Found) -> bool:
        spec = declaration(node.cls)
        is_entry = node is next(iter(self.found.values())) and self.replace is None
        return spec is not None and is_entry and bool(spec.middleware)

    def _mounts(self, node: _Found) -> tuple[str, ...]:
        spec = declaration(node.cls)
        if spec is None or node is not next(iter(self.found.values())) or self.replace is not None:
            return ()  # (a local graph has no port)
        for mount in spec.mounts:
            trace = ""
            try:
                wrong = mount_problem(mount)
            except BaseException as exc:  # user code may raise anything, SystemExit included
                wrong, trace = f"importing {mount.target!r} raised {explained(exc)}", formatted(exc)
            finally:
                if self.steady is not None:
                    self.steady.restore()
            if wrong is not None:
                self._trouble(f"{spec.file}:{spec.line}: {node.name}: {wrong}", trace)
        return tuple(mount.path for mount in spec.mounts)

    def _sockets(self, node: _Found) -> tuple[SocketPlan, ...]:
        plans = []
        is_entry = node is next(iter(self.found.values()))
        for method, spec in sockets(node.cls).items():
            where = f"{spec.file}:{spec.line}: {node.cls.__name__}.{method}"
            if not is_entry:
                self._trouble(
                    f"{where} is a @websocket, and only the entry has some, since clients connect"
                    f" to it alone: {node.name} is called by others, and streams to them from an"
                    " @api with '-> AsyncIterator[…]'"
                )
                continue
            # (a local graph has no connections that would need it)
            if self.replace is None and importlib.util.find_spec("websockets") is None:
                self._trouble(
                    f"{where} is a @websocket, which needs the package 'websockets': pip install"
                    " 'pygraphserve[ws]'"
                )
                continue
            try:
                Signature.of_socket(node.cls, method)
            except ConfigurationError as exc:
                self._trouble(str(exc))
                continue
            plans.append(SocketPlan(method, spec.route, spec.limits))
        return tuple(plans)

    def _apis(self, cls: type, options: ServiceOptions) -> tuple[ApiPlan, ...]:
        plans, troubles = interface(cls, limited=options.concurrency is not None)
        for message in troubles:
            self._trouble(message)
        return plans

    def _trouble(
        self,
        message: str,
        trace: str = "",
        cycle: tuple[str, ...] = (),
        places: tuple[str, ...] = (),
    ) -> None:
        trouble = Trouble(message, trace, cycle=cycle, places=places)
        if trouble not in self.troubles:
            self.troubles.append(trouble)


class _Refused(Exception):
    """Raised inside the walk once the trouble is noted."""


def main() -> None:
    """Run the resolver: read Settings from stdin, write a Resolution to a descriptor, both as JSON.

    The arguments of the program name the descriptor, and our parent.
    """
    die_with_parent(int(sys.argv[3]))
    begin_collecting()
    name_process("resolver", "resolve")
    # what user code starts must not hold it: we are waited for
    os.set_inheritable(int(sys.argv[2]), False)
    settings = Settings.from_json(sys.stdin.buffer.read())
    prompts.say_so()
    with open(int(sys.argv[2]), "w") as answer:
        os.register_at_fork(after_in_child=answer.close)  # nor what it forks
        steady = Steady(answer.fileno(), ignores=False)
        text = resolve(settings, steady).to_json()
        if steady.cut_off:
            os._exit(CUT_OFF)
        answer.write(text)
        forked.flush()
    os._exit(0)  # user modules may have started threads


def interface(cls: type, *, limited: bool) -> tuple[tuple[ApiPlan, ...], list[str]]:
    """Read the APIs of a service.

    Args:
        cls: its class.
        limited: whether its `concurrency` bounds all of them; sync and batched ones are bounded
            anyway.

    Returns:
        What the Plan says of each, and what is wrong with those that it cannot describe.
    """
    plans, troubles = [], []
    for method, spec in apis(cls).items():
        try:
            signature = Signature.of(cls, method)
        except ConfigurationError as exc:
            troubles.append(str(exc))
            continue
        parameters = list(inspect.signature(getattr(cls, method)).parameters.values())[1:]
        by_name = [
            parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY
        ]
        queued = limited or spec.batch is not None or not signature.is_async
        plans.append(
            ApiPlan(
                name=method,
                route=address(spec, signature.body),
                parameters=tuple(parameter.name for parameter in parameters),
                positional=len(parameters) - len(by_name) if by_name else None,
                lane="queue" if queued else "pooled",
                stream=signature.stream,
                input_stream=signature.input_stream,
                raw_body=signature.raw_body,
                forms=signature.forms,
                timeout=spec.timeout,
                idempotent=spec.idempotent,
                batch=spec.batch,
                fingerprint=fingerprint(signature),
                path=spec.route,
                methods=spec.methods,
                body=signature.body,
                files=signature.files_out,
            )
        )
    return tuple(plans), troubles


def address(spec: ApiDeclaration, body: str | None) -> str:
    """Return the path that services of the graph call an API at: its own, if that takes all
    arguments in the body of a POST.
    """
    plain = "POST" in spec.methods and body is None and not names_in(spec.route)
    return spec.route if plain else CALLS + spec.name
