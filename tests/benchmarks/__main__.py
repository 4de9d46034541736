"""`python -m tests.benchmarks`: measure, print the table, write the figures and the page."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from pathlib import Path

from tests.benchmarks import report
from tests.benchmarks.rounds import Run
from tests.benchmarks.systems import GRAPHSERVE, PEERS, PLAIN, SYSTEMS
from tests.benchmarks.workloads import WORKLOADS
from tests.measuring.processes import adopt_orphans

ROOT = Path(__file__).parents[2]
NAMES = [workload.name for workload in WORKLOADS]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="nox -s bench --", description=__doc__)
    parser.add_argument(
        "--peers",
        default=",".join(peer.name for peer in PEERS),
        help="which peers, by commas; '' for none",
    )
    parser.add_argument(
        "--workloads", default=",".join(NAMES), help=f"which of {', '.join(NAMES)} (a prefix does)"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="how long one load lasts")
    parser.add_argument(
        "--tries",
        type=int,
        default=3,
        help="how often a round is taken, while others use the machine too",
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=20.0,
        help="seconds that a try waits for others to be calm",
    )
    parser.add_argument("--quick", action="store_true", help="one round of one second")
    parser.add_argument(
        "--venvs",
        type=Path,
        default=ROOT / ".nox" / "bench-peers",
        help="the peers' virtual environments",
    )
    parser.add_argument("--json", type=Path, help="where the raw figures go")
    parser.add_argument("--page", type=Path, help="where the page goes (docs/benchmarks.md)")
    return parser.parse_args()


def main() -> None:
    """Everything, in order."""
    given = arguments()
    peers = [SYSTEMS[name] for name in given.peers.split(",") if name]
    prefixes = tuple(given.workloads.split(","))
    adopt_orphans()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that every process is ended
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        run = Run(
            [PLAIN, GRAPHSERVE, *peers], [each for each in WORKLOADS if each.name.startswith(prefixes)],
            rounds=1 if given.quick else given.rounds, seconds=1.0 if given.quick else given.seconds,
            venvs=given.venvs.resolve(), folder=Path(folder), tries=1 if given.quick else given.tries,
            patience=0.0 if given.quick else given.patience,
        )  # fmt: skip
        results = run.run()
    print(report.text(run, results))
    if given.json:
        given.json.write_text(json.dumps(report.raw(run, results), indent=1) + "\n")
    if given.page:
        given.page.parent.mkdir(exist_ok=True)
        given.page.write_text(report.page(run, results))


if __name__ == "__main__":
    main()
