"""The `graphserve` command: finds the subcommand, turns errors into messages and exit codes.

    serve, graph, check, config, doctor
                          one module each, however short: it is imported by the command's name;
                          serve, check and doctor ask `preflight` about the machine
    logs, stack           likewise: what a running graph has said, and where it is
    events                likewise: what happened to it
    operate               ps, status, metrics, scale, reload, restart, stop: a running graph
    client                how those find the graph and reach it, over its control socket
    top                   likewise: what it does, live; `figures` makes its figures of two looks
    since                 `--since`, of those that show what was
    flags                 the options, made from the table in `config/flags.py`
    library               the process that `graphserve.serve()` starts in place of the command
    display/              what they show

Start-up costs click only: a command's module is imported when it is asked for, and imports its own
needs when it runs.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from graphserve.cli.display import say
from graphserve.errors import ExitCode, GraphServeError, closest
from graphserve.system.inherited import open_standard_streams

# In the order of the help. Each is a function of its name, in `operate` or in a module of its own.
WITH_TARGET = ("serve", "graph", "check", "config", "doctor")
WITH_GRAPH = (
    "ps", "status", "top", "logs", "events", "stack", "metrics", "scale", "reload", "restart",
    "stop",
)  # fmt: skip
COMMANDS = (*WITH_TARGET, *WITH_GRAPH)
IN_OPERATE = ("ps", "status", "metrics", "scale", "reload", "restart", "stop")
# What other tools call the same.
SYNONYMS = {
    "run": "serve",
    "start": "serve",
    "up": "serve",
    "dev": "serve",
    "list": "ps",
    "ls": "ps",
    "kill": "stop",
    "down": "stop",
    "validate": "check",
    "lint": "check",
    "draw": "graph",
    "plot": "graph",
    "info": "status",
    "watch": "top",
    "stats": "top",
    "log": "logs",
    "tail": "logs",
    "dump": "stack",
    "trace": "stack",
}
# without a file name: what stdout says
_OF_OUTPUT = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class Commands(click.Group):
    """The group of all commands, each imported when needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        where = "operate" if cmd_name in IN_OPERATE else cmd_name
        module = importlib.import_module(f"graphserve.cli.{where}")
        if cmd_name in WITH_GRAPH:
            gc.enable()  # some of these go on for days, as `logs --follow` does
        command: click.Command = getattr(module, cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name in COMMANDS or name.startswith("-"):
            return super().resolve_command(ctx, args)
        if ":" in name or name.endswith(".py"):
            hint = f"did you mean graphserve serve {name}?"
        elif guess := SYNONYMS.get(name) or closest(name, COMMANDS):
            hint = f"did you mean {guess!r}?"
        else:
            hint = f"commands are {', '.join(COMMANDS)}"
        raise click.UsageError(f"there is no command {name!r}; {hint}", ctx)


@click.group(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(
    None, "-V", "--version", package_name="pygraphserve", message="%(prog)s %(version)s"
)
def commands() -> None:
    """Python classes in, a supervised service graph out.

    Start with `graphserve serve TARGET`, where TARGET is module:Class, such as app:Gateway, or
    path/to/file.py:Class. `graphserve COMMAND --help` has the options of a command.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code; never raises for a mistake of the user."""
    open_standard_streams()
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors in (
        "strict",
        "surrogateescape",
    ):
        # what an ASCII terminal cannot show is no traceback
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = commands.main(arguments, prog_name="graphserve", standalone_mode=False)
        sys.stdout.flush()
        return int(code or ExitCode.OK)
    except click.ClickException as exc:
        shown = io.StringIO()
        exc.show(shown)
        say.err(shown.getvalue().rstrip("\n"), "error")
        return int(exc.exit_code)
    except GraphServeError as exc:
        say.err(f"Error: {exc}", "error")
        return exc.exit_code
    except (KeyboardInterrupt, click.Abort):
        return ExitCode.INTERRUPTED
    except BrokenPipeError:  # `graphserve graph | head`: nobody reads on
        _discard_output()
        return ExitCode.FAILED
    except OSError as exc:  # what nobody nearer to it had better words for
        say.err(f"Error: {_words(exc)}", "error")
        return ExitCode.FAILED


def script() -> NoReturn:
    """Run the command as a process of its own,
    and end without the interpreter's own tidying, which takes time.

    No garbage is collected while modules are imported. Commands that look at a target import more
    when they run, and end soon; a supervisor collects from its start on
    (`child_process.begin_collecting`).
    """
    gc.disable()
    code = main()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # `main` has said what it could
            stream.flush()
    os._exit(code)


def _words(exc: OSError) -> str:
    if exc.filename:
        return f"{exc.filename}: {exc.strerror}"
    if exc.errno not in _OF_OUTPUT:
        return str(exc)
    _discard_output()
    return f"the output cannot be written: {exc.strerror}"


def _discard_output() -> None:
    """Discard what is left of the output:
    the interpreter would try to write it at its end, and complain.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
