"""Flags, environment and files to a Config. Runs in the process that the user started; stdlib only.

    flags         the table of options: name, kind and place in the Config, once for all three
                  sources
    values        how a value of each kind is read, and refused in words
    layers        `load`: the first of flag, environment and file that speaks wins; `explain` says
                  which one did
    envfile       `--env-file`
    certificate   checks of the files of TLS
    model         the Config: frozen, JSON over a pipe to the supervisor

A command calls `load(flags, environ, cwd)` once; the supervisor gets the Config as JSON.
"""

from __future__ import annotations

from graphserve.config.layers import Choice, TargetMissing, explain, load, run_dir
from graphserve.config.model import Config, Secrets

__all__ = ["Choice", "Config", "Secrets", "TargetMissing", "explain", "load", "run_dir"]
