"""`graphserve graph` and `graphserve check` as processes."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness import rarely

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["Gateway", "Recognizer"]),
        (["--format", "tree"], ["Gateway", "Recognizer"]),
        (["--dot"], ['"Gateway" -> "Recognizer"', "digraph"]),
        (["--format", "dot"], ['"Gateway" -> "Recognizer"']),
        (["--format", "mermaid"], ["Gateway", "Recognizer"]),
        (["--format", "svg"], ["<svg", "Recognizer"]),
    ],
)
def test_pictures(arguments: list[str], words: list[str], project: Path, here: Run) -> None:
    done = here("graph", "app:Gateway", *arguments)
    assert done.returncode == 0, done.stderr
    assert [word for word in words if word not in done.stdout] == []
    assert "\x1b" not in done.stdout


def test_json_is_the_plan(project: Path, run: Run) -> None:
    done = run(
        "graph",
        "app.py:Gateway",
        "--format",
        "json",
        GRAPHSERVE_SCALE="Recognizer=3",
        GRAPHSERVE_PORT="9000",
    )
    plan = json.loads(done.stdout)
    assert [(node["name"], node["workers"]) for node in plan["nodes"]] == [
        ("Recognizer", 3),
        ("Gateway", 1),
    ]
    assert plan["listen"]["port"] == 9000


def test_output_goes_to_a_file(project: Path, here: Run) -> None:
    done = here("graph", "app:Gateway", "--dot", "-o", "graph.dot")
    assert (done.returncode, done.stdout) == (0, "")
    assert "digraph" in (project / "graph.dot").read_text()
    for name, begin in (
        ("a.svg", "<svg "),
        ("a.gv", "digraph"),
        ("a.json", "{"),
        ("a.mmd", "flowchart"),
        ("a.txt", "Gateway"),
    ):
        assert here("graph", "app:Gateway", "-o", name).returncode == 0
        assert (project / name).read_text().startswith(begin), "the suffix says how it is drawn"
    refused = here("graph", "app:Gateway", "-o", "missing/graph.txt")
    assert refused.returncode == 1
    assert "cannot write missing/graph.txt" in refused.stderr


def test_the_env_file_is_there_while_modules_are_imported(project: Path, here: Run) -> None:
    (project / "app.py").write_text(
        "import os\nassert os.environ['MODEL'] == 'big'\n" + (project / "app.py").read_text()
    )
    (project / ".env").write_text("MODEL=big\n")
    assert here("graph", "app:Gateway").returncode == 4
    assert here("graph", "app:Gateway", "--env-file", ".env").returncode == 0


def test_the_entrypoint_of_pyproject(project: Path, here: Run) -> None:
    (project / "pyproject.toml").write_text('[tool.graphserve]\nentrypoint = "app:Gateway"\n')
    done = here("graph")
    assert done.returncode == 0, done.stderr
    assert "Recognizer" in done.stdout


@pytest.mark.parametrize("command", ["check", rarely("graph")])
@pytest.mark.parametrize(
    ("target", "message"),
    [("app:Gatway", "did you mean app:Gateway?"), ("nothing:X", "there is no module 'nothing'"), ("app", "app:Gateway"),
     ("none.py:X", "there is no file"), ("app:", "app:Gateway"), ("app.Gateway", "did you mean app:Gateway?"),
     ("./app:Gateway", "did you mean ./app.py:Gateway?"),
     ("there:Service", "but there is one in src: add --app-dir src"),
     ("package.there:Service", "but there is one in src: add --app-dir src")],
)  # fmt: skip
def test_a_wrong_target_exits_4(
    command: str, target: str, message: str, project: Path, here: Run
) -> None:
    (project / "src" / "package").mkdir(parents=True)
    (project / "src" / "there.py").touch()
    done = here(command, target)
    assert done.returncode == 4
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_goes_away_is_no_traceback(
    project: Path, environment: dict[str, str]
) -> None:
    shell = f"{sys.executable} -m graphserve graph app:Gateway --format json | true"
    done = subprocess.run(
        ["bash", "-c", shell],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""


class TestCheck:
    def test_fine(self, project: Path, run: Run) -> None:
        done = run("check", "app:Gateway", "--port", "0")
        assert done.returncode == 0, done.stderr
        assert done.stdout == "ok: 2 nodes\n"

    def test_reports_everything_at_once(self, project: Path, here: Run) -> None:
        text = (
            (project / "app.py")
            .read_text()
            .replace("workers=2", "workers=2, gpus=1, queue=10_000_000")
        )
        (project / "app.py").write_text(text)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            done = here(
                "check", "app:Gateway", "--port", port, "--ssl-certfile", "none.pem", "--run-dir", "x" * 100,
                CUDA_VISIBLE_DEVICES="0",
            )  # fmt: skip
        assert done.returncode == 4
        for message in (
            f"127.0.0.1:{port} is in use by another process", "none.pem: cannot be read", "Give a shorter one with --run-dir",
            "more GPUs (Recognizer 2 × 1) than the 1 that are visible",
        ):  # fmt: skip
            assert message in done.stderr
        assert "Warning: Recognizer: queue=10000000 is cut to" in done.stderr
        assert "Traceback" not in done.stderr
        assert done.stdout == ""

    def test_user_code_that_raises_shows_the_users_traceback(
        self, project: Path, here: Run
    ) -> None:
        (project / "app.py").write_text("1 / 0\n")
        done = here("check", "app:Gateway")
        assert done.returncode == 4
        assert "ZeroDivisionError" in done.stderr
        assert "graphserve/cli" not in done.stderr

    def test_a_node_that_does_not_exist(self, project: Path, here: Run) -> None:
        done = here("check", "app:Gateway", "--port", "0", "--scale", "Recogniser=2")
        assert done.returncode == 4
        assert done.stderr.count("Recogniser") == 1
        assert "Recognizer" in done.stderr
