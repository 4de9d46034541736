"""`graphserve serve`: runs a graph until it is told to stop.

This process becomes the supervisor.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from types import FrameType
from typing import TYPE_CHECKING

import click

from graphserve.cli.flags import configure, serve_options
from graphserve.errors import ExitCode, GraphServeError, StartupError
from graphserve.system import os_errors
from graphserve.system.inherited import unblock_signals

if TYPE_CHECKING:
    from graphserve.config import Config
    from graphserve.graph.resolver import Resolver


@click.command("serve", short_help="Serve the graph of TARGET.")
@serve_options
def serve(**given: object) -> int:
    """Serve the graph of TARGET, module:Class or path/to/file.py:Class, until Ctrl-C or SIGTERM.

    Each option can also be given as an environment variable (--port as GRAPHSERVE_PORT), in the
    file of --config, or under [tool.graphserve] in pyproject.toml.
    """
    signal.signal(signal.SIGTERM, _end)
    unblock_signals()
    try:
        return _serve(given)
    except GraphServeError as exc:
        _tell_manager(exc)
        raise


def _serve(given: Mapping[str, object]) -> int:
    config = configure(given)

    from graphserve.graph.resolver import Resolver

    # it works while we import circus
    resolver = Resolver(config.settings, config.env, capture=True)
    try:
        return _run(config, resolver, given)
    finally:
        resolver.close()


def _tell_manager(error: GraphServeError) -> None:
    """Tell systemd why nothing starts."""
    if "NOTIFY_SOCKET" in os.environ:
        from graphserve.supervise.systemd import tell_failure

        tell_failure(str(error), os.environ)


def _end(number: int, frame: FrameType | None) -> None:
    """End at SIGTERM before there is a supervisor who handles it;
    process 1 would not even receive it.
    """
    sys.exit(ExitCode.OK)


def _run(config: Config, resolver: Resolver, given: Mapping[str, object]) -> int:
    from graphserve.cli.preflight import command_line, refuse

    warnings = refuse(config)

    from graphserve.cli.display.display import open_display
    from graphserve.supervise import LogRecord, run
    from graphserve.supervise.process.sockets import InUse

    try:
        display = open_display(config.log_format, config.settings.log_level)
    except RuntimeError as exc:  # it has a thread of its own
        raise StartupError(f"the graph could not start: {os_errors.explain(exc)}") from exc
    try:
        for trouble in (*command_line(given), *warnings):
            display.log(LogRecord(time.time(), "warning", trouble.message))
        return run(config, display, resolver, lambda: configure(given))
    except GraphServeError as exc:
        error: GraphServeError = exc
        if isinstance(exc, InUse):
            from graphserve.cli.client import owner  # brings http.client along

            error = StartupError(f"{exc}{owner(config.settings.listen)}")
        display.failed(error)
        _tell_manager(error)
        return error.exit_code
    finally:
        display.close()
