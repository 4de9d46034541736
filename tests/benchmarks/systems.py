"""What is measured against each other: how each system is installed and started, and which graphs
it can serve.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmarks.processes import Server, StartError
from tests.benchmarks.workloads import Workload
from tests.measuring.processes import free_port
from tests.measuring.requests import Request

HERE = Path(__file__).parent
INSTALL_LIMIT = 900  # seconds
Command = Callable[[str, str, int, Path], list[str]]


@dataclass(frozen=True)
class System:
    """One system.

    Args:
        name: its name in tables.
        packages: what its own virtual environment gets; without, it runs in the Python that runs
            this.
        shown: the distributions whose versions are told.
        graphs: the graphs that it can serve, each with its APIs.
        command: the command line, from Python, graph, port and folder.
        env: variables to set, from graph and folder.
        path: the only path that it answers, if not that of the API.
    """

    name: str
    packages: tuple[str, ...]
    shown: tuple[str, ...]
    graphs: Mapping[str, frozenset[str]]
    command: Command
    env: Callable[[str, Path], Mapping[str, str]] = field(default=lambda graph, folder: {})
    path: str | None = None

    def serves(self, workload: Workload) -> bool:
        """Whether it can do this work at all."""
        return workload.api in self.graphs.get(workload.graph, ())

    def request(self, workload: Workload, port: int) -> Request:
        """The call that is made for a workload."""
        return Request(port, self.path or f"/{workload.api}", workload.body, workload.headers)

    def start(self, workload: Workload, python: str, folder: Path) -> tuple[Server, float]:
        """Start the graph of a workload and wait until it answers; the server, and the seconds that
        it took.

        Raises:
            StartError: it did not.
        """
        folder.mkdir(parents=True, exist_ok=True)
        port = free_port()
        command = self.command(python, workload.graph, port, folder)
        server = Server(
            command,
            port,
            folder,
            {"PYTHONPATH": str(HERE.parent.parent), **self.env(workload.graph, folder)},
        )
        try:
            return server, server.wait_ready(self.request(workload, port))
        except BaseException:
            server.stop()
            raise


def _graphs(text: str) -> dict[str, frozenset[str]]:
    """`graph:api,api graph:api` as a mapping."""
    pairs = (each.partition(":") for each in text.split())
    return {graph: frozenset(apis.split(",")) for graph, _, apis in pairs}


GRAPHSERVE_ENTRIES = {
    "pair": "graphs:Pair", "calls": "graphs:Calls", "five": "graphs:Deep5", "deep": "graphs:Deep10",
    "fan": "graphs:Fan",
    "balance": "graphs:Balance", "balance-wide": "graphs:Balance", "model": "graphs:Model", "batch": "graphs:Batching",
    "stream": "graphs:Stream", "arrays": "arrays:Arrays",
}  # fmt: skip


def _graphserve(python: str, graph: str, port: int, folder: Path) -> list[str]:
    workers = ["--workers", "4"] if graph == "balance-wide" else []
    return [
        python, "-m", "graphserve", "serve", GRAPHSERVE_ENTRIES[graph], "--app-dir", str(HERE), "--port", str(port),
        "--no-access-log", "--run-dir", str(folder / "run"), *workers,
    ]  # fmt: skip


def _plain(python: str, graph: str, port: int, folder: Path) -> list[str]:
    return [
        python,
        "-m",
        "uvicorn",
        "--no-access-log",
        "--port",
        str(port),
        "tests.benchmarks.peers.plain:app",
    ]


def _bentoml(python: str, graph: str, port: int, folder: Path) -> list[str]:
    file, _, name = GRAPHSERVE_ENTRIES[graph].partition(":")
    return [
        python, "-m", "bentoml", "serve", f"bentoml_{file}:{name}", "--working-dir", str(HERE / "peers"),
        "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip


def _bentoml_env(graph: str, folder: Path) -> dict[str, str]:
    home = folder / "home"
    home.mkdir(exist_ok=True)
    return {"BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True"}


def _script(name: str) -> Command:
    return lambda python, graph, port, folder: [
        python, str(HERE / "peers" / f"{name}_graphs.py"), graph, str(port), str(folder)
    ]  # fmt: skip


def _mosec(python: str, graph: str, port: int, folder: Path) -> list[str]:
    return [
        python, str(HERE / "peers" / "mosec_graphs.py"), "--address", "127.0.0.1", "--port", str(port),
        "--timeout", "30000",
        "--path", str(folder / "run"), "--log-level", "error",
    ]  # fmt: skip


GRAPHSERVE = System(
    "graphserve", (), ("pygraphserve", "uvicorn", "uvloop", "httptools", "msgspec"),
    _graphs("pair:chain calls:local,chain,client,uds five:run deep:run fan:fan balance:balance balance-wide:balance "
            "model:balance batch:batch arrays:tensor stream:stream"),
    _graphserve, lambda graph, folder: {"BENCHMARK_RUN_DIR": str(folder / "run")},
)  # fmt: skip
PLAIN = System("plain", (), ("starlette", "uvicorn"), _graphs("calls:local stream:stream"), _plain)
PEERS = (
    System(
        "bentoml", ("bentoml", "uvloop", "httptools", "numpy"), ("bentoml",),
        _graphs("pair:chain calls:local,chain five:run deep:run fan:fan balance:balance model:balance batch:batch "
                "arrays:tensor stream:stream"),
        _bentoml, _bentoml_env,
    ),
    System(
        "ray", ("ray[serve]",), ("ray",),
        _graphs("pair:chain calls:local,chain five:run deep:run fan:fan balance:balance batch:batch stream:stream"),
        _script("ray"), lambda graph, folder: {"RAY_USAGE_STATS_ENABLED": "0"},
    ),
    System(
        "mosec", ("mosec",), ("mosec",),
        _graphs("pair:chain calls:chain five:run deep:run balance:balance batch:batch"),
        _mosec, lambda graph, folder: {"GRAPH": graph}, path="/inference",
    ),
    System(
        "litserve", ("litserve",), ("litserve",), _graphs("calls:local model:balance"), _script("litserve"),
        path="/predict",
    ),
)  # fmt: skip
SYSTEMS = {system.name: system for system in (GRAPHSERVE, PLAIN, *PEERS)}


def python_of(system: System, venvs: Path) -> str:
    """The Python that runs a system; its virtual environment is made first if it is not there.

    Raises:
        StartError: it cannot be installed.
    """
    if not system.packages:
        return sys.executable
    venv = venvs / system.name
    python = venv / "bin" / "python"
    if not (venv / "complete").exists():
        print(f"installing {system.name} …", file=sys.stderr, flush=True)
        for command in (
            [sys.executable, "-m", "venv", "--clear", str(venv)],
            [
                str(python),
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                *system.packages,
            ],
        ):
            run = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_LIMIT)
            if run.returncode:
                raise StartError(
                    f"not installed: {(run.stderr.strip().splitlines() or ['?'])[-1][:200]}"
                )
        (venv / "complete").touch()
    return str(python)


def versions(system: System, python: str) -> dict[str, str]:
    """The versions of a system's distributions."""
    code = "import sys, importlib.metadata as m; print(*[m.version(name) for name in sys.argv[1:]])"
    run = subprocess.run(
        [python, "-c", code, *system.shown],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": ""},
    )
    return dict(zip(system.shown, run.stdout.split(), strict=False))
