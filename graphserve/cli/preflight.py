"""Checks of the machine before a start: listener, certificate, folders, limits, packages.

Each says what to do.

Runs in the process that the user started. A check yields Troubles and changes nothing.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import resource
import socket
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from graphserve.config import Config
from graphserve.config.certificate import certificate
from graphserve.errors import ConfigurationError, StartupError
from graphserve.graph.plan import ListenPlan, Plan, Trouble
from graphserve.system import listening, machine as here, os_errors
from graphserve.system.rundir.claim import claim_problem
from graphserve.system.rundir.paths import MAX_SOCKET_PATH, PREFIX, UNFINISHED, parent, path_problem
from graphserve.wire.api_keys import SHORT, ApiKeys, read_key
from graphserve.wire.hosts import split

if TYPE_CHECKING:
    from importlib.metadata import Distribution

DISTRIBUTION = "pygraphserve"  # what pip installs; the package in it is `graphserve`
# begin the names of their metadata
OVERWRITING = ("graphserve-", "graphserve.", "kantoku-", "kantoku.")
OPEN_FILES = 4096  # fewer than this, and many callers at once find no descriptor
REQUIRED = (
    "circus",
    "h11",
    "httptools",
    "httpx",
    "msgspec",
    "networkx",
    "starlette",
    "uvicorn",
    "uvloop",
)


def refuse(config: Config) -> list[Trouble]:
    """Make the quick checks that `serve` makes first, and return the warnings among what they find.

    Raises:
        ConfigurationError: the certificate cannot be used, a socket's path is too long, nothing can
            be watched, the event loop is not there, or other distributions write into our packages.
    """
    tls, password = config.settings.listen.tls, config.keyfile_password
    found = [
        *certificate(tls, password),
        *api_keys(config.api_keys),
        *api_keys(config.admin_keys),
        *socket_paths(config),
        *reloading(config),
        *event_loop(config),
        *overwritten(),
    ]
    if problems := [trouble.message for trouble in found if not trouble.warning]:
        raise ConfigurationError("\n".join(problems))
    return [trouble for trouble in found if trouble.warning]


def machine(config: Config) -> Iterator[Trouble]:
    """Check everything about this machine that the configuration alone decides."""
    listen = config.settings.listen
    yield from certificate(listen.tls, config.keyfile_password)
    yield from api_keys(config.api_keys)
    yield from api_keys(config.admin_keys)
    yield from (unix_listener(listen) if listen.uds else address(listen))
    yield from admin_address(config)
    yield from socket_paths(config)
    yield from run_folder(config.run_dir)
    yield from packages()
    yield from reloading(config)
    yield from event_loop(config)
    yield from open_files()


def event_loop(config: Config) -> Iterator[Trouble]:
    """Check that the workers can have the event loop that was asked for."""
    if config.settings.loop == "uvloop" and importlib.util.find_spec("uvloop") is None:
        yield Trouble(
            "--loop uvloop: uvloop is not installed; install it, or give --loop auto or --loop"
            " asyncio"
        )


def api_keys(keys: ApiKeys | None) -> Iterator[Trouble]:
    """Check that API keys are secret, and cannot be guessed."""
    if keys is None:
        return
    yield from secrecy(keys.path, "API keys")
    if keys.short:
        yield Trouble(
            f"{keys.path}: the API key of {', '.join(keys.short)} is shorter than {SHORT}"
            " characters, and can be guessed: take one of `openssl rand -hex 24`",
            warning=True,
        )


def keys_elsewhere(plan: Plan) -> Iterator[Trouble]:
    """Check that the API keys that services elsewhere want are there, and are secret."""
    for node in plan.nodes:
        for edge in node.edges:
            if edge.api_key_file is None:
                continue
            try:
                read_key(edge.api_key_file, f"{node.name}.{edge.place}", edge.node)
            except ConfigurationError as exc:
                yield Trouble(str(exc))
            else:
                yield from secrecy(edge.api_key_file, "an API key")


def secrecy(path: str, what: str) -> Iterator[Trouble]:
    """Check that nobody but its owner can read or change a file."""
    mode = os.stat(path).st_mode if os.path.exists(path) else 0
    if mode & (stat.S_IRGRP | stat.S_IROTH | stat.S_IWGRP | stat.S_IWOTH):
        yield Trouble(
            f"others than its owner can read or change {path}, which holds {what}: chmod 600"
            f" {path}",
            warning=True,
        )


def command_line(given: Mapping[str, object]) -> Iterator[Trouble]:
    """Check that the command line holds nothing that other users should not read."""
    if given.get("ssl_keyfile_password") is not None:
        yield Trouble(
            "every user of this machine can read --ssl-keyfile-password in the list of processes:"
            " give --ssl-keyfile-password-file FILE, or set GRAPHSERVE_SSL_KEYFILE_PASSWORD",
            warning=True,
        )


def graph(plan: Plan) -> Iterator[Trouble]:
    """Check everything about this machine that the graph decides."""
    yield from keys_elsewhere(plan)
    yield from gpus(plan, here.gpus())
    yield from queues(plan)


def admin_address(config: Config) -> Iterator[Trouble]:
    """Check that the admin port can be bound."""
    if config.admin is not None:
        host, port = split(config.admin)
        for trouble in address(ListenPlan(host=host.strip("[]"), port=int(port))):
            yield Trouble(f"--admin: {trouble.message}")


def address(listen: ListenPlan) -> Iterator[Trouble]:
    """Check that the host is one of this machine's, and the port free."""
    try:
        found = socket.getaddrinfo(
            listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as exc:
        yield Trouble(listening.explain_unknown_host(exc, listen.host))
        return
    family, kind, protocol, _, target = found[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(target)
        except OSError as exc:
            yield _bind_problem(listen, exc)


def unix_listener(listen: ListenPlan) -> Iterator[Trouble]:
    """Check that a socket can be made at the path of `--uds`."""
    path = listen.uds or ""
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        yield _bind_problem(listen, OSError(errno.ENOENT, ""))
    elif not os.access(folder, os.W_OK | os.X_OK):
        yield _bind_problem(listen, OSError(errno.EACCES, ""))
    elif words := listening.obstacle(path):
        yield Trouble(words)
    elif os.path.lexists(path) and _answers(path):
        yield _bind_problem(listen, OSError(errno.EADDRINUSE, ""))


def _bind_problem(listen: ListenPlan, exc: OSError) -> Trouble:
    words = listening.explain(exc, listen.host, listen.port, listen.uds)
    if exc.errno != errno.EADDRINUSE:
        return Trouble(words)
    from graphserve.cli.client import owner  # brings http.client along

    return Trouble(words + owner(listen))


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except BlockingIOError:
            return True  # its queue is full: somebody has it
        except OSError:
            return False
    return True


def socket_paths(config: Config) -> Iterator[Trouble]:
    """Check that the paths of all sockets fit into what the kernel takes."""
    uds = config.settings.listen.uds
    if uds and (size := len(os.fsencode(uds))) > MAX_SOCKET_PATH:
        yield Trouble(
            f"--uds {uds}: a socket's path has at most {MAX_SOCKET_PATH} bytes, this has {size}"
        )
    try:
        # A new folder's name ends in the 8 characters of tempfile.mkdtemp.
        folder = Path(config.run_dir) if config.run_dir else parent() / f"{PREFIX}12345678"
    except StartupError:
        return  # `run_folder` and the start say so
    if problem := path_problem(folder):
        yield Trouble(problem)


def run_folder(path: str | None) -> Iterator[Trouble]:
    """Check that the folder of `--run-dir` can be one, and is free."""
    try:
        folder = Path(path) if path else parent()
    except StartupError as exc:
        yield Trouble(str(exc))
        return
    if problem := claim_problem(folder) if path else "":
        yield Trouble(problem)
        return
    # (`os.path.isdir` and not `Path.is_dir`, which raises where this user may not look.)
    above = next(above for above in (folder, *folder.parents) if os.path.isdir(above))
    try:
        # permission is not all: /proc takes nothing
        os.rmdir(tempfile.mkdtemp(prefix=UNFINISHED, dir=above))
    except OSError as exc:
        yield Trouble(f"the run folder {folder} cannot be used: {os_errors.explain(exc)}")


def reloading(config: Config) -> Iterator[Trouble]:
    """Check that `--reload` can watch what it shall."""
    if not config.reload:
        return
    if importlib.util.find_spec("watchfiles") is None:
        yield Trouble("--reload needs the package watchfiles: pip install 'pygraphserve[reload]'")
    for folder in config.reload_dirs:
        if not os.path.isdir(folder):
            yield Trouble(f"--reload-dir {folder}: there is no such folder")


def packages() -> Iterator[Trouble]:
    """Check that what graphserve needs is there, and that nothing overwrites it."""
    for name in REQUIRED:
        if importlib.util.find_spec(name) is None:
            yield Trouble(
                f"the package {name} is missing: install {DISTRIBUTION} again, with its"
                " dependencies"
            )
    yield from overwritten()


def overwritten() -> Iterator[Trouble]:
    """Check that no other distribution writes into the packages `graphserve` and `circus`."""
    if not any(map(_may_have_metadata, sys.path)):
        return  # the look costs a tenth of what importlib.metadata does
    if (other := _installed("graphserve")) is not None and _writes(other, "graphserve"):
        yield Trouble(
            f"the distribution graphserve {other.version} is installed beside {DISTRIBUTION}, and"
            " both write the package `graphserve`; on PyPI it is another project. Uninstall both,"
            f" and install this one again: pip uninstall -y graphserve {DISTRIBUTION}, then pip"
            f" install {DISTRIBUTION}"
        )
    if _installed("kantoku") and _installed("circus"):
        yield Trouble(
            "kantoku is installed beside circus, and both write the package `circus`: give"
            " graphserve an environment of its own (BentoML brings kantoku), or uninstall both and"
            " install circus again"
        )


def _may_have_metadata(folder: str) -> bool:
    """Return whether metadata that `overwritten` looks for may be in a folder,
    or in an archive, of `sys.path`.
    """
    try:
        names = os.listdir(folder or ".")
    except NotADirectoryError:
        return True
    except OSError:
        return False
    return any(name.lower().startswith(OVERWRITING) for name in names)


def _installed(name: str) -> Distribution | None:
    import importlib.metadata

    try:
        return importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _writes(distribution: Distribution, package: str) -> bool:
    """Return whether a distribution has files in a package; an editable one of a clone has none."""
    return any(path.parts[:1] == (package,) for path in distribution.files or ())


def open_files() -> Iterator[Trouble]:
    """Check that there are descriptors enough; a start raises the soft limit to the hard one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < OPEN_FILES:
        yield Trouble(
            f"only {hard} files may be open (`ulimit -Hn`): raise it to {OPEN_FILES} or more",
            warning=True,
        )


def gpus(plan: Plan, visible: list[str]) -> Iterator[Trouble]:
    """Check that every worker which asks for GPUs gets them, as the supervisor hands them out."""
    asking = [node for node in plan.nodes if node.options.gpus]
    if not asking:
        return
    from graphserve.supervise.process.environment import assign_gpus  # brings circus along

    placed = assign_gpus(plan, visible)
    if any((node.name, slot) not in placed for node in asking for slot in range(node.workers)):
        asked = ", ".join(f"{node.name} {node.workers} × {node.options.gpus:g}" for node in asking)
        yield Trouble(
            f"the graph asks for more GPUs ({asked}) than the {len(visible)} that are visible:"
            " lower workers or gpus, or look at CUDA_VISIBLE_DEVICES"
        )


def queues(plan: Plan, file: Path = Path("/proc/sys/net/core/somaxconn")) -> Iterator[Trouble]:
    """Check that the kernel does not cut a node's queue short."""
    try:
        most = int(file.read_text())
    except (OSError, ValueError):
        return
    for node in plan.nodes:
        if node.options.queue > most:
            yield Trouble(
                f"{node.name}: queue={node.options.queue} is cut to {most} by the kernel: "
                f"`sysctl -w net.core.somaxconn={node.options.queue}`",
                warning=True,
            )
