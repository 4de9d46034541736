"""The resolver as its parent sees it:
a short-lived child that imports user code and answers with a Resolution.

What it does there is in `builder.py`. Runs in the supervisor, and in the commands that start
nothing.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import Literal

from graphserve.declare.options import ServiceOptions
from graphserve.errors import ConfigurationError, CycleError, GraphError, StartupError
from graphserve.graph.plan import Plan, Resolution, Settings
from graphserve.isolation import restore
from graphserve.system import inherited, os_errors, stack
from graphserve.system.child_process import FIRST_FILE, end_group

# What systemd says to the supervisor alone (sd_notify(3)): user code that spoke there would speak
# for the graph.
OF_SYSTEMD = frozenset({"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"})
# Options that may hold secrets of one node: they are ours to read, and no other node's to see.
SECRET_OPTIONS = frozenset({"GRAPHSERVE_SET", "GRAPHSERVE_SSL_KEYFILE_PASSWORD"})
# exit code of a resolver whose way to answer was closed; no other process of ours ends with it
CUT_OFF = 83
# seconds: `startup_timeout` counts from `__init__` on, and a short one says nothing of imports
LEAST_IMPORT = 15.0


def import_limit(startup_timeout: float | None) -> float:
    """Return the seconds that imports may take, in a worker and in the resolver.

    Args:
        startup_timeout: as configured; None: imports may take as long as the default lets them.
    """
    return max(
        ServiceOptions.startup_timeout if startup_timeout is None else startup_timeout, LEAST_IMPORT
    )


class Resolver:
    """The child; it works from now on, beside its parent.

    Args:
        settings: what to resolve.
        env: variables to add to the environment (`--env-file`).
        capture: whether `outputs` has what user modules print while they are imported; else it goes
            to stderr.

    Raises:
        StartupError: the machine does not give us a process.
    """

    def __init__(
        self, settings: Settings, env: Mapping[str, str] | None = None, *, capture: bool = False
    ) -> None:
        self.target = settings.target
        try:
            answer, writing = inherited.pipe()
            self._answer = answer
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", FIRST_FILE, "resolve", str(writing), str(os.getpid())],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE if capture else 2,
                    stderr=subprocess.PIPE if capture else None,
                    pass_fds=[writing],
                    env=quiet(environment(settings.debug, env or {})),
                    start_new_session=True,
                )
            finally:
                os.close(writing)
        except OSError as exc:
            why = os_errors.explain(exc)
            raise StartupError(
                f"the process that imports {self.target!r} could not be started: {why}"
            ) from exc
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError), self._process.stdin as stdin:
            stdin.write(settings.to_json().encode())

    @property
    def pid(self) -> int:
        """The pid of the child."""
        return self._process.pid

    def outputs(self) -> list[tuple[Literal["stdout", "stderr"], int]]:
        """Return the reading ends of its outputs, if they are captured; they stay its own."""
        out, err = self._process.stdout, self._process.stderr
        return [("stdout", out.fileno()), ("stderr", err.fileno())] if out and err else []

    def answers(self, seconds: float) -> bool:
        """Wait so long for it to answer or to end; whether it did."""
        poll = select.poll()
        poll.register(self._answer, select.POLLIN)
        return bool(poll.poll(seconds * 1e3))

    def too_slow(self, limit: float) -> str:
        """Return what to say of one that took longer than this."""
        least = f"(--startup-timeout, at least {LEAST_IMPORT:g} s)"
        return f"importing {self.target!r} was not done after {limit:g} s {least}"

    def wait(self) -> Resolution:
        """Wait for the answer; once.

        Raises:
            ConfigurationError: the child died; its last words stand on stderr.
        """
        with open(self._answer, "rb") as answer:
            text = answer.read()
        code = self._reap()
        if code == CUT_OFF:
            raise ConfigurationError(f"importing {self.target!r} {restore.CLOSED}")
        if not text:
            how = (
                f"ended with exit code {code}"
                if code >= 0
                else f"was killed by {signal.Signals(-code).name}"
            )
            raise ConfigurationError(
                f"the process that imports {self.target!r} {how} before it was done"
            )
        return Resolution.from_json(text)

    def interrupt(self) -> None:
        """Have it write to stderr where it hangs, and end."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, stack.SIGNAL)  # (Popen's own way would reap it)

    def kill(self) -> None:
        """End it, and the processes that user modules started in it; `wait` then returns."""
        if self._process.returncode is None:
            end_group(self.pid)  # before anybody reaps it
            self._process.wait()

    def _reap(self) -> int:
        """Wait for its end, and end what user modules started in it: while it is a zombie, the
        group is its own.
        """
        with contextlib.suppress(ChildProcessError):  # `kill` was quicker, in another thread
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
            end_group(self.pid)
        return self._process.wait()

    def close(self) -> None:
        """End it, and close its outputs."""
        self.kill()
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()


def quiet(env: dict[str, str]) -> dict[str, str]:
    """Return this environment with a filter for a warning of Python's: that a process left shared
    memory or semaphores behind.

    The processes that modules start are ended with the resolver, which is none of their doing.
    """
    known = env.get("PYTHONWARNINGS")
    filters = ([known] if known else []) + ["ignore:resource_tracker:UserWarning"]
    return {**env, "PYTHONWARNINGS": ",".join(filters)}


def environment(debug: bool, extra: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a process that runs user code.

    Args:
        debug: whether that code is being edited (`--reload`).
        extra: what `--env-file` says.
    """
    kept = {
        name: value for name, value in os.environ.items() if name not in OF_SYSTEMD | SECRET_OPTIONS
    }
    env = kept | dict(extra)
    if debug:
        # Bytecode is matched by size and whole seconds: two edits within one would run the first
        # again.
        env["PYTHONDONTWRITEBYTECODE"] = env.get("PYTHONDONTWRITEBYTECODE") or "1"
    return env


def resolve_in_child(settings: Settings, env: Mapping[str, str] | None = None) -> Resolution:
    """Resolve in a child, and wait for it; what user modules print goes to stderr.

    Args:
        settings: what to resolve, and how long it may take.
        env: variables to add to the environment (`--env-file`).

    Raises:
        ConfigurationError: the child died.
        StartupError: it took too long; where it hangs stands on stderr.
    """
    child, limit = Resolver(settings, env), import_limit(settings.startup_timeout)
    try:
        if not child.answers(limit):
            child.interrupt()
            child.answers(stack.WRITE_TIMEOUT)
            raise StartupError(child.too_slow(limit))
        return child.wait()
    finally:
        child.close()


def require(resolution: Resolution) -> Plan:
    """Return the Plan of a resolution.

    Raises:
        CycleError: there is none, because services depend on each other in a circle.
        GraphError: there is none; every trouble stands in the message, every traceback in its log.
    """
    if resolution.plan is not None:
        return resolution.plan
    bad = [trouble for trouble in resolution.troubles if not trouble.warning]
    if len(bad) == 1 and bad[0].cycle:
        raise CycleError(bad[0].cycle, bad[0].places)
    traces = [trouble.traceback.rstrip("\n") for trouble in bad if trouble.traceback]
    raise GraphError("\n".join(trouble.message for trouble in bad), "\n\n".join(traces))
