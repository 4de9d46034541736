"""The click options of the commands, made from the table of options;
and from what was given, the Config.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import click

from graphserve.config import Config, load
from graphserve.config.flags import BY_KEY, COMMON, FLAGS, Flag
from graphserve.config.values import (
    BODY_SIZE,
    CERT_REQS,
    CERTIFICATES,
    SIZE,
    SWITCH,
    ValueSource,
    ValueType,
)
from graphserve.errors import ConfigurationError

C = TypeVar("C", bound=Callable[..., object])
PASSWORD = BY_KEY["ssl_keyfile_password"].variable
ARGUMENT = "entrypoint"  # the flag of the table that is an argument here


def target_options(command: C) -> C:
    """Add TARGET, and the options of every command with a TARGET."""
    return _with([flag for flag in FLAGS if flag.key in COMMON], command)


def serve_options(command: C) -> C:
    """Add TARGET, and the options that decide what is served and how."""
    return _with([flag for flag in FLAGS if flag.flag and flag.key != ARGUMENT], command)


def configure(given: Mapping[str, object]) -> Config:
    """Return the Config of what click parsed,
    with the environment and the files of this process.
    """
    config = load(
        {name: value for name, value in given.items() if value is not None},
        os.environ,
        current_folder(),
    )
    # processes that run user code inherit the environment; it is not for them
    os.environ.pop(PASSWORD, None)
    return config


def current_folder() -> Path:
    """Return where relative paths start.

    Raises:
        ConfigurationError: there is none.
    """
    try:
        return Path.cwd()
    except OSError as exc:
        reason = "it was removed" if isinstance(exc, FileNotFoundError) else exc.strerror
        raise ConfigurationError(
            f"the current folder cannot be used, {reason}: change to another one"
        ) from None


def _with(flags: list[Flag], command: C) -> C:
    for flag in reversed(flags):
        command = _option(flag)(command)
    return click.argument(ARGUMENT, metavar="[TARGET]", required=False)(command)


def _option(flag: Flag) -> Callable[[C], C]:
    names = [f"-{flag.short}"] if flag.short else []
    if flag.kind is SWITCH:
        return click.option(
            *names, f"--{flag.name}/--no-{flag.name}", default=None, help=_help(flag)
        )
    return click.option(
        *names, f"--{flag.name}", flag.key, metavar=flag.kind.metavar, multiple=flag.many,
        callback=checked(flag.name, flag.kind), help=_help(flag),
    )  # fmt: skip


def checked(
    name: str, kind: ValueType[object]
) -> Callable[[click.Context, click.Parameter, object], object]:
    """Return a callback that parses the value of an option;
    a value that is not of this kind is wrong usage.
    """

    def check(ctx: click.Context, parameter: click.Parameter, value: object) -> object:
        if value is None or value == ():
            return None
        source = ValueSource(f"--{name}", current_folder())
        try:
            return kind.parse(value, source)
        except ConfigurationError as exc:
            raise click.UsageError(str(exc), ctx) from None

    return check


def _help(flag: Flag) -> str:
    default = flag.default
    if default is None or default in ("", ()) or flag.kind is SWITCH:
        return flag.help
    return f"{flag.help} [default: {_written(flag, default)}]"


def _written(flag: Flag, value: object) -> str:
    """Return a value as a user writes it."""
    if isinstance(value, int) and flag.kind is CERT_REQS:
        return CERTIFICATES[value]
    if isinstance(value, int) and flag.kind in (SIZE, BODY_SIZE):
        return _size(value)
    return str(value)


def _size(number: int) -> str:
    for power, unit in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
        if number and number % 1024**power == 0:
            return f"{number // 1024**power}{unit}"
    return str(number)
