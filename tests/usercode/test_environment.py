"""What each worker finds in its environment: devices by slot, threads, and what options and files
give it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from graphserve.system import machine
from tests.harness import Served, eventually, served

pytestmark = pytest.mark.slow

APP = """
import os
from graphserve import api, service, depends

FLAVOUR = os.environ.get("FLAVOUR", "plain")

@service(workers=2, gpus=1)
class Whole:
    @api
    async def x(self) -> int:
        return 1

@service(workers=2, gpus=0.5, env={"A": "decorator", "B": "decorator", "OMP_NUM_THREADS": "7"})
class Half:
    @api
    async def x(self) -> int:
        return 1

@service(name=f"Top-{FLAVOUR}", workers="cpus")
class Top:
    whole = depends(Whole)
    half = depends(Half)

    @api
    async def x(self) -> int:
        return 1
"""

NODES = {"Half": "n0", "Whole": "n1", "Top": "n2"}  # ids by name: leaves by name, then the entry


@pytest.fixture
def app(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


def environment(pid: int) -> dict[str, str]:
    entries = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(entry.partition("=")[::2] for entry in entries if entry)


def devices(graph: Served, node: str) -> dict[str, str]:
    """The devices of each slot of a node."""
    found = [environment(pid) for pid in graph.workers(node)]
    return {env["GRAPHSERVE_INTERNAL_SLOT"]: env["CUDA_VISIBLE_DEVICES"] for env in found}


def test_workers_get_their_own_devices_and_keep_them(app: Path) -> None:
    with served("app:Top", cwd=app, env={"CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b,GPU-c"}) as graph:
        assert sorted(devices(graph, NODES["Whole"]).values()) == ["GPU-a", "GPU-b"]
        assert devices(graph, NODES["Half"]) == {"0": "GPU-c", "1": "GPU-c"}
        before = devices(graph, NODES["Whole"])
        for victim in graph.workers(NODES["Whole"]):
            os.kill(victim, signal.SIGKILL)
            eventually(lambda victim=victim: victim not in graph.workers(), 30)
            eventually(lambda: len(graph.workers(NODES["Whole"])) == 2, 30)
        eventually(lambda: devices(graph, NODES["Whole"]) == before)
        assert "not enough GPUs" not in graph.text


def test_too_few_devices(app: Path) -> None:
    done = command(app, "check", "app:Top", "--port", "0", CUDA_VISIBLE_DEVICES="0,1")
    assert done.returncode == 4
    assert (
        "the graph asks for more GPUs (Half 2 × 0.5, Whole 2 × 1) than the 2 that are visible"
        in done.stderr
    )
    assert (
        command(app, "check", "app:Top", "--port", "0", CUDA_VISIBLE_DEVICES="0,1,2").returncode
        == 0
    )
    with served("app:Top", cwd=app, env={"CUDA_VISIBLE_DEVICES": "0,1"}) as graph:
        graph.wait_log(r"WARNING there are not enough GPUs: Half\[0\], Half\[1\] will see none")
        assert devices(graph, NODES["Half"]) == {"0": "", "1": ""}


def command(app: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith("GRAPHSERVE_")
    }
    return subprocess.run(
        [sys.executable, "-m", "graphserve", *arguments], cwd=app, env=clean | env, capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip


def test_threads_workers_and_variables(app: Path) -> None:
    (app / ".env").write_text("FLAVOUR=sweet\nA=file\nMKL_NUM_THREADS=3\nC=file\n")
    arguments = ["--env-file", ".env", "--set", "Half.env=A=flag", "--set", "Half.env=D=flag"]
    env = {"OPENBLAS_NUM_THREADS": "5", "C": "outside"}
    with served("app:Top", *arguments, cwd=app, env=env) as graph:
        graph.wait_log("Top-sweet ready")  # the resolver had the file's variables too
        cpus = machine.cpus()
        assert len(graph.workers(NODES["Top"])) == cpus
        half = environment(graph.workers(NODES["Half"])[0])
        assert [half[name] for name in "ABCD"] == ["flag", "decorator", "outside", "flag"]
        assert half["OMP_NUM_THREADS"] == "7", "the decorator's"
        assert half["OPENBLAS_NUM_THREADS"] == "5", "the environment's"
        assert half["MKL_NUM_THREADS"] == "3", "the file's"
        assert half["NUMEXPR_NUM_THREADS"] == str(max(1, cpus // 2)), "a share of the CPUs"
        top = environment(graph.workers(NODES["Top"])[0])
        assert top["OMP_NUM_THREADS"] == "1"
        assert (top["A"], "B" in top) == ("file", False)


def test_devices_are_counted_where_the_driver_lists_none(tmp_path: Path) -> None:
    for name in ("nvidia0", "nvidia1", "nvidia12", "nvidiactl", "nvidia-uvm", "nvidia0x", "null"):
        (tmp_path / name).touch()
    assert machine._count_gpus(tmp_path / "none", tmp_path) == 3
    listed = tmp_path / "gpus"
    (listed / "0000:01:00.0").mkdir(parents=True)
    assert machine._count_gpus(listed, tmp_path) == 1


def test_devices_that_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for text, found in (("0, 2", ["0", "2"]), ("", []), ("-1", []), ("GPU-a,", ["GPU-a"])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", text)
        assert machine.gpus() == found
