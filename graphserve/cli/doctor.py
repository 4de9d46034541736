"""`graphserve doctor`: what this machine is, and what of it is in the way: one paste for a report.

Each finding is a fact, with what to do where it is a trap. What keeps a graph from starting is
found by `preflight`, as for `graphserve check`.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import platform
import resource
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal

import click

from graphserve.cli import preflight
from graphserve.cli.client import RunningGraph, described, owner
from graphserve.cli.display import say
from graphserve.cli.display.table import size
from graphserve.cli.flags import configure, current_folder, serve_options
from graphserve.config import Config, TargetMissing
from graphserve.declare.options import ServiceOptions
from graphserve.errors import ExitCode, GraphServeError, StartupError
from graphserve.graph.plan import ListenPlan, Plan, Trouble
from graphserve.system import machine
from graphserve.system.frozen import dataclass
from graphserve.system.rundir.paths import parent
from graphserve.system.rundir.search import live_folders

FindingState = Literal["ok", "warning", "problem"]
# what behaviour depends on; those that are not installed are left out
PACKAGES = (
    *preflight.REQUIRED, "click", "rich", "tornado", "numpy", "pydantic", "python-multipart",
    "websockets", "a2wsgi", "watchfiles", "pillow", "pandas", "polars", "pyarrow", "torch",
)  # fmt: skip
LITTLE_MEMORY = 512 * 1024 * 1024  # bytes that are available; less, and few models fit
LITTLE_SHM = 64 * 1024 * 1024  # bytes of /dev/shm: what Docker gives, if nobody says more
FEW_PROCESSES = 512
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Finding:
    """One line.

    Args:
        what: it is about.
        found: what is there.
        state: whether that is in the way.
        advice: what to do; empty if it is not.
    """

    what: str
    found: str
    state: FindingState = "ok"
    advice: str = ""


@click.command("doctor", short_help="Show what this machine is, and what of it is in the way.")
@serve_options
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array: an object a line.")
def doctor(as_json: bool, **given: object) -> int:
    """Show versions, limits and traps of this machine: one paste for a bug report.

    With TARGET, or where one is configured, also what would keep it from starting, as `graphserve
    check` says it. Exits with 4 if there is anything. Starts nothing, and shows no secrets.
    """
    current_folder()  # without one, nothing below says anything true
    facts = [*_facts()]
    told = {each.advice for each in facts}
    found = facts + [each for each in _configured(given) if each.found not in told]
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(each) for each in found], indent=2))
    else:
        for each in found:
            say.out(f"{each.state:<8} {each.what:<12} {each.found}")
            if each.advice:
                say.out(f"{'':<8} → {each.advice}")
    return ExitCode.INVALID if any(each.state == "problem" for each in found) else ExitCode.OK


def _facts() -> Iterator[Finding]:
    """Look at everything that no configuration decides; what cannot be looked at is said."""
    looks: tuple[tuple[str, Callable[[], Iterable[Finding]]], ...] = (
        ("versions", _versions),
        ("packages", _packages),
        ("event loop", _event_loop),
        ("CPUs", _cpus),
        ("memory", _memory),
        ("open files", _open_files),
        ("processes", _processes),
        ("queues", _queues),
        ("/dev/shm", _shm),
        ("GPUs", _gpus),
        ("run folder", _run_folder),
        ("graphs", _graphs),
        ("environment", _environment),
        ("kernel", _kernel),
    )
    for what, look in looks:
        try:
            yield from look()
        except (OSError, ValueError, GraphServeError) as exc:
            yield Finding(what, f"cannot be looked at: {exc}", "warning")


def _configured(given: dict[str, object]) -> Iterator[Finding]:
    """Look at what the configuration decides, and at the graph, if there is one."""
    try:
        config = configure(given)
    except TargetMissing:
        yield Finding("target", "none is given, so no graph was looked at")
        yield from _port(ListenPlan())
        return
    except GraphServeError as exc:
        yield Finding("target", str(exc), "problem")
        return
    from graphserve.graph.resolver import resolve_in_child

    resolution = resolve_in_child(config.settings, config.env)
    troubles = [*resolution.troubles, *preflight.command_line(given), *preflight.machine(config)]
    if resolution.plan is not None:
        troubles += preflight.graph(resolution.plan)
        yield Finding("target", _described(resolution.plan))
    yield from _where(config)
    yield from _of(troubles, "target", owner(config.settings.listen))


def _described(plan: Plan) -> str:
    nodes = ", ".join(f"{node.name} × {node.workers}" for node in plan.nodes)
    return f"{plan.entry}: {nodes}"


def _where(config: Config) -> Iterator[Finding]:
    listen = config.settings.listen
    tls = " with TLS" if listen.tls else ""
    yield Finding("address", (listen.uds or f"{listen.host}:{listen.port}") + tls)


def _of(troubles: Iterable[Trouble], what: str, owned: str) -> Iterator[Finding]:
    """Return what troubles say.

    Args:
        troubles: these.
        what: they are about.
        owned: what is said of the address if a graph of this user has it, which is no trouble: it
            may be the very graph that is asked about.
    """
    for trouble in troubles:
        if owned and owned in trouble.message:
            yield Finding("address", owned.strip())
        else:
            yield Finding(what, trouble.message, "warning" if trouble.warning else "problem")


def _or_fine(what: str, found: str, troubles: Iterable[Trouble]) -> Iterator[Finding]:
    """Return a fact, with what `preflight` says of it."""
    said = list(troubles)
    if not said:
        yield Finding(what, found)
    for trouble in said:
        state: FindingState = "warning" if trouble.warning else "problem"
        yield Finding(what, found, state, trouble.message)


def _versions() -> Iterator[Finding]:
    version = importlib.metadata.version(preflight.DISTRIBUTION)
    yield Finding("graphserve", version)
    python = f"{platform.python_implementation()} {platform.python_version()}, {sys.executable}"
    yield Finding("Python", python)
    libc = " ".join(platform.libc_ver())
    yield Finding("system", f"{platform.system()} {platform.release()} {platform.machine()} {libc}")


def _packages() -> Iterator[Finding]:
    found = []
    for name in dict.fromkeys(PACKAGES):
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    yield from _or_fine("packages", ", ".join(found), preflight.packages())


def _event_loop() -> Iterator[Finding]:
    import importlib.util

    if importlib.util.find_spec("uvloop") is not None:
        yield Finding("event loop", "uvloop")
    else:
        yield Finding(
            "event loop", "asyncio", "warning", "uvloop is not installed: calls take longer"
        )


def _cpus() -> Iterator[Finding]:
    usable, there = machine.cpus(), os.cpu_count() or 1
    more = f", of {there}" if usable != there else ""
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    found = f"{usable} usable{more}; load {load}"
    threads = os.environ.get("OMP_NUM_THREADS")
    if threads is None and usable > 1:
        advice = (
            "numerical libraries start a thread for each CPU in each worker: where a node has"
            " several workers, give them fewer, as in --set Model.env=OMP_NUM_THREADS=1"
        )
        yield Finding("CPUs", found, "ok", advice)
    else:
        yield Finding("CPUs", found)


def _memory() -> Iterator[Finding]:
    lines = dict(
        line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines() if ":" in line
    )
    total, available = (int(lines[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    found = f"{size(available)} available of {size(total)}"
    limit = _cgroup("memory.max")
    if limit is not None:
        used = _cgroup("memory.current") or 0
        found += f"; this cgroup uses {size(used)} of {size(limit)}"
        available = min(available, limit - used)
    if available < LITTLE_MEMORY:
        yield Finding("memory", found, "warning", "the kernel kills workers when it runs out")
    else:
        yield Finding("memory", found)


def _cgroup(name: str) -> int | None:
    """Return a limit of the cgroup (v2) of this process, or a count of it; None: there is none."""
    try:
        own = next(
            line.split("::", 1)[1]
            for line in Path("/proc/self/cgroup").read_text().splitlines()
            if line.startswith("0::")
        )
    except (OSError, StopIteration):
        return None
    for folder in (CGROUP / own.lstrip("/"), CGROUP):
        try:
            text = (folder / name).read_text().strip()
        except OSError:
            continue
        return int(text) if text.isdigit() else None
    return None


def _open_files() -> Iterator[Finding]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = f"{_limit(soft)}, raised to {_limit(hard)} at a start"
    yield from _or_fine("open files", found, preflight.open_files())


def _processes() -> Iterator[Finding]:
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    pids = _cgroup("pids.max")
    limits = [limit for limit in (soft, pids) if limit not in (None, resource.RLIM_INFINITY)]
    found = f"{_limit(soft)} for this user"
    if pids is not None:
        found += f"; {pids} in this cgroup"
    if limits and min(limits) < FEW_PROCESSES:
        advice = "threads count too: raise it (`ulimit -u`, TasksMax= of systemd, --pids-limit)"
        yield Finding("processes", found, "warning", advice)
    else:
        yield Finding("processes", found)


def _limit(value: int) -> str:
    return "unlimited" if value == resource.RLIM_INFINITY else str(value)


def _queues() -> Iterator[Finding]:
    most = int(Path("/proc/sys/net/core/somaxconn").read_text())
    usual = ServiceOptions().queue
    found = f"somaxconn {most}"
    if most < usual:
        advice = f"a node's queue of {usual} is cut to that: `sysctl -w net.core.somaxconn={usual}`"
        yield Finding("queues", found, "warning", advice)
    else:
        yield Finding("queues", found)


def _shm() -> Iterator[Finding]:
    there = os.statvfs("/dev/shm")
    total, free = there.f_blocks * there.f_frsize, there.f_bavail * there.f_frsize
    found = f"{size(free)} free of {size(total)}"
    if total <= LITTLE_SHM:
        advice = (
            "graphserve does not use it, but torch and multiprocessing do: docker run --shm-size=1g"
        )
        yield Finding("/dev/shm", found, "warning", advice)
    else:
        yield Finding("/dev/shm", found)


def _gpus() -> Iterator[Finding]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    found = ", ".join(machine.gpus()) or "none"
    more = "" if visible is None else f" (CUDA_VISIBLE_DEVICES={visible})"
    yield Finding("GPUs", found + more)


def _run_folder() -> Iterator[Finding]:
    try:
        folder = str(parent())
    except StartupError as exc:
        yield Finding("run folder", "none", "problem", str(exc))
        return
    yield from _or_fine("run folder", f"a new one in {folder}", preflight.run_folder(None))


def _graphs() -> Iterator[Finding]:
    folders = live_folders()
    if not folders:
        yield Finding("graphs", "none of this user is running")
    for folder in folders:
        yield Finding("graphs", f"{described(RunningGraph(folder))}  --run-dir {folder}")


def _environment() -> Iterator[Finding]:
    names = sorted(name for name in os.environ if name.startswith("GRAPHSERVE_"))
    yield Finding("environment", f"set: {', '.join(names)}" if names else "no GRAPHSERVE_… is set")
    if os.environ.get("PYTHONDONTWRITEBYTECODE"):
        yield Finding(
            "environment",
            "PYTHONDONTWRITEBYTECODE is set",
            "warning",
            "each worker compiles its modules anew: unset it, so that starts are quicker",
        )
    if os.environ.get("PYTHONPATH"):
        yield Finding(
            "environment",
            "PYTHONPATH is set",
            "ok",
            "its folders come before what is installed, in the workers too",
        )


def _kernel() -> Iterator[Finding]:
    missing = []
    calls: tuple[tuple[str, Callable[[], int]], ...] = (
        ("pidfd_open", lambda: os.pidfd_open(os.getpid())),
        ("memfd_create", lambda: os.memfd_create("graphserve-doctor")),
    )
    for name, call in calls:
        try:
            os.close(call())
        except (OSError, AttributeError) as exc:
            missing.append(f"{name} ({exc})")
    if missing:
        advice = "a sandbox forbids it, or the kernel is older than 5.3: graphserve needs it"
        yield Finding("kernel", f"without {', '.join(missing)}", "problem", advice)
    else:
        yield Finding("kernel", "pidfd_open and memfd_create work")
    if "microsoft" in platform.release().lower():
        yield Finding(
            "kernel",
            "WSL",
            "warning",
            "--reload sees no changes of files below /mnt/c: keep them in the file system of Linux",
        )


def _port(listen: ListenPlan) -> Iterator[Finding]:
    found = f"{listen.host}:{listen.port}"
    for each in _or_fine("port", found, preflight.address(listen)):
        # no graph is meant yet: another port is as good
        yield each if each.state == "ok" else dataclasses.replace(each, state="warning")
