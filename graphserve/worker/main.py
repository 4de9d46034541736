"""The first and the last steps of a worker's process: it connects, imports user code, runs its
event loop, ends.

Started by the supervisor (see `child.py`): the Plan in the run folder says what it is, the control
connection what it does (`process`). What it serves is in `server`, or in `fallback` if it answers
in place of the entry.

User modules are imported before there is an event loop, as a program imports them. The control
connection is there by then, and nobody reads it: if the supervisor ends meanwhile, PR_SET_PDEATHSIG
ends this process; a thread that watched would make every fork of user code one of a process with
threads.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NoReturn

from graphserve.errors import ConfigurationError, ExitCode, StartupError
from graphserve.graph.importer import Target, explained, load
from graphserve.graph.plan import NodePlan, Plan
from graphserve.isolation import forked, prompts
from graphserve.isolation.restore import CLOSED, Steady
from graphserve.logs import records
from graphserve.logs.tracebacks import formatted
from graphserve.system.child_process import begin_collecting, die_with_parent
from graphserve.system.inherited import (
    REVISION_VARIABLE,
    RUN_VARIABLE,
    SLOT_VARIABLE,
    SUPERVISOR_VARIABLE,
    do_nothing,
    take_input,
)
from graphserve.system.process_title import name_process
from graphserve.system.rundir.paths import plan_file, workers_socket
from graphserve.worker import logs, stacks
from graphserve.worker.dispatch import endings
from graphserve.worker.forks import Forks
from graphserve.worker.lifecycle import Lifecycle, ProcessState
from graphserve.worker.process import FallbackServerProcess, HostProcess, Worker

# Seconds after which processes of multiprocessing are killed that its exit handler waits for, such
# as one that ignores SIGTERM.
CHILDREN_PATIENCE = 2.0


def main() -> None:
    """Run the process: `child.py worker <node id>`, or `child.py fallback <node id>`."""
    die_with_parent(int(os.environ.pop(SUPERVISOR_VARIABLE)))
    # Ctrl-C reaches the whole foreground group of a terminal; the supervisor decides what it means.
    signal.signal(signal.SIGINT, do_nothing)
    run = Path(os.environ.pop(RUN_VARIABLE))
    revision = int(os.environ.pop(REVISION_VARIABLE))
    plan = Plan.from_json(plan_file(run, revision).read_text())
    node = next(node for node in plan.nodes if node.id == sys.argv[2])
    slot = "fallback" if sys.argv[1] == "fallback" else os.environ.get(SLOT_VARIABLE, "")
    name_process(f"{node.name}[{slot}]", sys.argv[1], node.id)
    records.open_pipe(take_input(), plan.log_level)
    logs.configure(plan.log_level)
    stacks.answer_signals()
    make_loop = _loop_factory(plan.loop)
    forks = Forks(run)
    forks.install()
    sock = _connect(run)
    life = Lifecycle()
    found = None if sys.argv[1] == "fallback" else _import_user(plan, node, sock, life)
    life.move_to(ProcessState.WAITING)

    host = HostProcess()

    async def live() -> None:
        if found is None:
            begin_collecting(tidy=True)
            await FallbackServerProcess(plan, node, run, forks, sock, life, host).live()
        else:
            await Worker(plan, node, run, forks, sock, life, host, found).live()

    with asyncio.Runner(loop_factory=make_loop) as runner:
        _run(runner.get_loop(), live(), node.name)
    _end(host)


def _connect(run: Path) -> socket.socket:
    """Connect to the supervisor, which knows from now on that we live: the kernel tells it our
    pid.
    """
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(workers_socket(run))
    return sock


def _loop_factory(loop: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return what makes the event loop; its library is imported before user code can replace it."""
    if loop != "asyncio":
        try:
            import uvloop
        except ImportError:
            if loop == "uvloop":
                raise
        else:
            return uvloop.new_event_loop
    return asyncio.SelectorEventLoop  # not what a policy of user code would make


def _import_user(
    plan: Plan, node: NodePlan, sock: socket.socket, life: Lifecycle
) -> type | StartupError:
    """Import the class of a node and return it; or what went wrong, for the supervisor."""
    import graphserve.worker.server  # noqa: F401  (before modules of the user's can replace what it imports)

    begin_collecting(tidy=True)

    def terminate(number: int, frame: FrameType | None) -> None:
        life.end()

    # SIGTERM ends a worker that does not serve yet, but not in the middle of a module.
    signal.signal(signal.SIGTERM, terminate)
    prompts.say_so()
    steady = Steady(sock.fileno(), ignores=True)
    sys.argv[:] = plan.argv
    for folder in reversed(plan.sys_path):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    target = Target(*node.target.split(":"))
    found: type | StartupError
    try:
        found = load(target, plan.main)
    except ConfigurationError as exc:
        found = StartupError(f"{node.name}: {exc}", node.name)
    except BaseException as exc:  # user code may raise anything, SystemExit included
        text = f"{node.name}: importing {target.module!r} raised {explained(exc)}"
        found = StartupError(text, node.name, formatted(exc))
    steady.restore()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(ExitCode.OK))
    if steady.cut_off:
        os.write(2, f"importing {target.module!r} {CLOSED}\n".encode())
        os._exit(ExitCode.STARTUP)
    if life.state is ProcessState.ENDED:
        os._exit(ExitCode.OK)
    return found


def _run(loop: asyncio.AbstractEventLoop, work: Coroutine[object, None, None], node: str) -> None:
    """Run the worker to its end.

    A task or a callback of user code that raises SystemExit or KeyboardInterrupt has asyncio leave
    the loop, with every call that is executed in it: whoever awaits the task has been told, so it
    is logged, and the loop goes on.
    """
    life = loop.create_task(work)
    thread = threading.get_ident()

    def end_copy() -> None:
        # In a process that user code forks in a coroutine, and that comes back to its copy of the
        # loop.
        if threading.get_ident() == thread:
            loop.call_soon(forked.leave, "a coroutine", None)
            # What was ready with that coroutine is run before, by the copy too: without its
            # sockets it fails, which is no news.
            loop.set_exception_handler(lambda loop, context: None)

    os.register_at_fork(after_in_child=end_copy)
    while True:
        try:
            loop.run_until_complete(life)
            endings.flush()
            return
        except (SystemExit, KeyboardInterrupt) as exc:
            if forked.forks:
                forked.leave("a task or a callback", exc)
            if life.done():
                raise
            text = (
                f"{node}: a task or a callback raised {type(exc).__name__}({exc}); the worker"
                " goes on"
            )
            endings.raised(loop, exc, partial(records.note, "graphserve", "error", text, exc))


def _end(host: HostProcess) -> NoReturn:
    """End although user code may have forgotten threads and processes: the interpreter would wait
    for them.

    `__aexit__` has run, so who wanted to end them in order has done so. What is registered with
    `atexit` runs.
    """
    _end_children()
    try:
        atexit._run_exitfuncs()
    except BaseException as exc:  # what one of them raises, Python has printed
        if not isinstance(exc, SystemExit):
            records.note("graphserve", "error", f"an exit handler raised {type(exc).__name__}", exc)
    host.flush()
    host.exit(ExitCode.OK)


def _end_children() -> None:
    """Kill the processes of multiprocessing that the interpreter would wait for, and in a while
    those that are left.

    The others are daemonic, such as the workers of a Pool: multiprocessing's own exit handler ends
    them in order. One of them may hold the lock of the pool's queue; killed with it, it would have
    that handler wait for ever.
    """
    if "multiprocessing" not in sys.modules:
        return
    from multiprocessing import active_children

    def end_all() -> None:
        time.sleep(CHILDREN_PATIENCE)
        for child in active_children():
            child.kill()

    for child in active_children():
        if not child.daemon:
            child.kill()
    threading.Thread(target=end_all, name="graphserve-end", daemon=True).start()
