"""`python -m graphserve`: the command line."""

from __future__ import annotations

from graphserve.cli import script

if __name__ == "__main__":
    script()
