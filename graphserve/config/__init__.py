"""Flags, environment and files → Config. Runs in the process that the user started; stdlib only."""

from __future__ import annotations

from graphserve.config.layers import TargetMissing, load, run_dir
from graphserve.config.model import Config

__all__ = ["Config", "TargetMissing", "load", "run_dir"]
