"""`python -m tests.faults`: inject, print the table, write the figures and the page.

Exit code 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path

from tests.faults import report
from tests.faults.faults import FAULTS
from tests.faults.outcome import Fault, Outcome, Setting
from tests.faults.scene import stage, steerable
from tests.measuring.processes import adopt_orphans

NAMES = [fault.name for fault in FAULTS]


def arguments() -> argparse.Namespace:
    """The command line."""
    normal = Setting()
    parser = argparse.ArgumentParser(prog="nox -s faults --", description=__doc__)
    parser.add_argument("--faults", default=",".join(NAMES), help=f"which of {', '.join(NAMES)}")
    parser.add_argument(
        "--seconds", type=float, default=normal.seconds, help="how long the load of each lasts"
    )
    parser.add_argument("--rate", type=float, default=normal.rate, help="requests a second")
    parser.add_argument(
        "--clients", type=int, default=normal.clients, help="how many cut the line at once"
    )
    parser.add_argument("--json", type=Path, help="where the raw figures go")
    parser.add_argument("--page", type=Path, help="where the page goes (docs/faults.md)")
    given = parser.parse_args()
    if unknown := set(given.faults.split(",")) - set(NAMES):
        parser.error(f"no such fault: {', '.join(sorted(unknown))}")
    return given


def main() -> int:
    """Everything, in order."""
    given = arguments()
    setting = Setting(given.seconds, given.rate, given.clients)
    adopt_orphans()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that every process is ended
    found = [
        (fault, _inject(fault, setting))
        for fault in FAULTS
        if fault.name in given.faults.split(",")
    ]
    print(report.figures(found))
    if given.json:
        given.json.write_text(json.dumps(report.raw(found), indent=1) + "\n")
    if given.page:
        given.page.write_text(report.page(found, setting))
    return int(any(outcome.broken or outcome.slow for _, outcome in found))


def _inject(fault: Fault, setting: Setting) -> Outcome:
    print(f"{fault.name}: {fault.title}", file=sys.stderr, flush=True)
    if not steerable(fault.needs):
        outcome = Outcome(broken=[f"there is no `graphserve {fault.needs}`"])
    else:
        with stage() as folder:
            outcome = fault.inject(setting, folder)
    print(report.details(outcome), file=sys.stderr, flush=True)
    return outcome


if __name__ == "__main__":
    raise SystemExit(main())
