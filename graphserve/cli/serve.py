"""`graphserve serve`: run a graph until it is told to stop. This process becomes the supervisor."""

from __future__ import annotations

import os
from typing import Any

import click

from graphserve.cli.flags import configure, serve_options
from graphserve.errors import GraphServeError


@click.command("serve", short_help="Serve the graph of TARGET.")
@serve_options
def command(**given: Any) -> int:
    """Serve the graph of TARGET, module:Class or path/to/file.py:Class.

    Each option can also be given as an environment variable (--port as GRAPHSERVE_PORT), in the file of --config, or
    under [tool.graphserve] in pyproject.toml.
    """
    config = configure(given)
    os.environ.pop("GRAPHSERVE_SSL_KEYFILE_PASSWORD", None)  # workers inherit the environment; it is not for them

    from graphserve.cli.preflight import refuse_bad_listener

    refuse_bad_listener(config)

    from graphserve.cli.display import open_display
    from graphserve.supervise import run

    display = open_display(config.log_format, config.settings.log_level)
    try:
        return run(config, display)
    except GraphServeError as exc:
        display.failed(exc)
        return exc.exit_code
    finally:
        display.close()
