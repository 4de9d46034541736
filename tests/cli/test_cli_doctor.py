"""`graphserve doctor`: what this machine is, and what of it is in the way."""

from __future__ import annotations

import json
import os
import resource
import socket
from pathlib import Path
from typing import Any

import pytest

from graphserve.cli import doctor, main

APP = """
from graphserve import api, service

@service
class Top:
    @api
    def run(self, x: int) -> int: ...
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "app_of_doctor.py").write_text(APP)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def findings(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[Any]]:
    code = main(["doctor", "--json", *arguments])
    return code, json.loads(capsys.readouterr().out)


def test_a_machine_is_described_without_a_graph_and_without_secrets(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GRAPHSERVE_SSL_KEYFILE_PASSWORD", "secret-1")
    monkeypatch.setenv("SOME_TOKEN", "secret-2")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    code, found = findings(capsys)
    assert code == 0
    assert "secret-" not in json.dumps(found)
    by_what = {each["what"]: each for each in found}
    assert set(by_what) >= {
        "graphserve", "Python", "system", "packages", "event loop", "CPUs", "memory", "open files",
        "processes", "queues", "/dev/shm", "GPUs", "run folder", "graphs", "environment", "kernel",
        "target", "port",
    }  # fmt: skip
    assert "uvicorn " in by_what["packages"]["found"]
    (trap,) = [each for each in found if "PYTHONDONTWRITEBYTECODE" in each["found"]]
    assert trap["state"] == "warning"
    assert trap["advice"]


def test_a_graph_is_checked_and_its_problems_are_the_exit_code(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "app_of_doctor:Top", "-p", "0"]) == 0
    assert "ok       target       Top: Top × 1\n" in capsys.readouterr().out
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = str(sock.getsockname()[1])
        code, found = findings(capsys, "app_of_doctor:Tob", "-p", port)
    assert code == 4
    problems = [each["found"] for each in found if each["state"] == "problem"]
    assert any("did you mean app_of_doctor:Top?" in each for each in problems)
    assert any("is in use by another process" in each for each in problems)
    code, found = findings(capsys, "--config", "nowhere.toml")
    assert code == 4
    assert "nowhere.toml: cannot read" in found[-1]["found"]


def test_traps_are_told_with_what_to_do(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def few(kind: int) -> tuple[int, int]:
        return (100, 100)

    def gone(path: str) -> os.statvfs_result:
        raise FileNotFoundError(2, "No such file or directory", path)

    monkeypatch.setattr(resource, "getrlimit", few)
    monkeypatch.setattr(os, "statvfs", gone)
    monkeypatch.setattr(doctor, "LITTLE_MEMORY", 2**62)
    code, found = findings(capsys)
    assert code == 0
    warned = {each["what"] for each in found if each["state"] == "warning"}
    assert warned >= {"open files", "processes", "memory", "/dev/shm"}
    advice = [each["advice"] for each in found if each["what"] == "open files"]
    assert advice == ["only 100 files may be open (`ulimit -Hn`): raise it to 4096 or more"]


def test_what_a_sandbox_forbids_is_a_problem(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(pid: int) -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    code, found = findings(capsys)
    assert code == 4
    (problem,) = [each for each in found if each["state"] == "problem"]
    assert "pidfd_open" in problem["found"]
