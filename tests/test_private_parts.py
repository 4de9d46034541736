"""What graphserve leans on that others may change without notice: private parts of Python, and all
of circus.

Each is named here with the place that uses it, so that a new version which lacks one fails here,
and says what to mend.
"""

from __future__ import annotations

import asyncio
import atexit
import inspect
import re
from importlib.metadata import requires

from circus.process import Process
from circus.watcher import Watcher


def test_exit_handlers_can_be_run_before_the_process_ends() -> None:
    """Decision record 0081: there is no public way."""
    assert callable(atexit._run_exitfuncs), (
        "worker/main.py ends by it without waiting for forgotten threads"
    )


def test_a_group_of_tasks_holds_what_it_will_raise() -> None:
    assert vars(asyncio.TaskGroup())["_base_error"] is None, (
        "worker/dispatch/endings.py looks for it there"
    )


def test_circus_is_pinned_to_the_version_whose_inner_parts_are_used() -> None:
    (pinned,) = [each for each in requires("pygraphserve") or [] if re.match(r"circus\b", each)]
    assert re.fullmatch(r"circus==[0-9.]+", pinned), (
        "supervise/process/worker_process.py steers a Watcher from inside"
    )


def test_a_watcher_of_circus_has_the_parts_that_are_steered() -> None:
    assert [*inspect.signature(Watcher.initialize).parameters][1:] == [
        "evpub_socket",
        "sockets",
        "arbiter",
    ]
    assert "recovery_wid" in inspect.signature(Watcher.spawn_process).parameters
    source = inspect.getsource(Watcher)
    for name in (
        "self._status",
        "self.processes",
        "self.env",
        "self._process_class",
        "_get_stdin_socket_fd",
    ):
        assert re.search(re.escape(name) + r"\b", source), (
            f"supervise/process/worker_process.py uses {name}"
        )
    for name in ("poll", "close_output_channels"):
        assert callable(getattr(Process, name))
