"""The option `--since` of commands that show what was: a time, or how long ago."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

import click

C = TypeVar("C", bound=Callable[..., object])
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}  # seconds
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd])", re.ASCII)


def since_option(command: C) -> C:
    """Add `--since`; its value is in seconds since the epoch."""
    words = "Show what is newer: 30s, 5m, 2h, 1d, or a time such as 2026-01-31T12:00:00."
    return click.option("--since", metavar="TIME", callback=_since, help=words)(command)


def _since(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    if match := _DURATION.fullmatch(value):
        return max(0.0, time.time() - float(match[1]) * UNITS[match[2]])
    try:
        return max(0.0, datetime.fromisoformat(value).timestamp())
    except (ValueError, OverflowError, OSError):
        raise click.BadParameter(
            f"{value!r} is no time: write 30s, 5m, 2h or 1d, or 2026-01-31T12:00:00"
        ) from None
