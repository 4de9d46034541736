"""Counters over a reload that changes the Plan: what was counted by the old one stays."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import served
from tests.metrics.reading import Metrics, scrape

APP = """
from graphserve import api, depends, service

@service
class Back:
{before}
    @api
    def add(self, one: int) -> int:
        return one + 1

@service
class Front:
    back = depends(Back)

    @api
    async def add(self, one: int) -> int:
        return await self.back.add(one)
"""
# now the numbers of the Plan mean something else
MORE = """
    @api
    def another(self) -> int:
        return 1
"""
REQUESTS = "http_server_request_duration_seconds_count"
CALLS = "graphserve_call_duration_seconds_count"


def added(metrics: Metrics) -> tuple[float, float]:
    return (
        metrics.total(REQUESTS, http_route="/add", http_response_status_code="200"),
        metrics.total(CALLS, caller="Front", service="Back", api="add", outcome="ok"),
    )


@pytest.mark.slow
def test_counters_go_on_over_a_reload_and_a_change_of_scale(tmp_path: Path) -> None:
    app, run_dir = tmp_path / "app.py", tmp_path / "run"
    app.write_text(APP.format(before=""))

    def command(*arguments: str) -> None:
        words = [sys.executable, "-m", "graphserve", *arguments, "--run-dir", str(run_dir)]
        subprocess.run(words, cwd=tmp_path, check=True, capture_output=True, timeout=120)

    with served("app:Front", "--run-dir", str(run_dir), cwd=tmp_path) as graph:
        client = graph.client()

        def call() -> None:
            for number in range(5):
                assert client.post("/add", json={"one": number}).json() == number + 1

        call()
        before = scrape(run_dir)
        assert added(before) == (5, 5)
        app.write_text(APP.format(before=MORE))
        for change in (["reload"], ["scale", "Back=3"], ["scale", "Back=1"], ["restart"]):
            command(*change)
            call()
        after = scrape(run_dir)
        assert added(after) == (25, 25)
        assert after.by("graphserve_worker_restarts_total", "service") == {}
        assert after.by("graphserve_workers", "state", service="Back") == {"ready": 1}
        found = {(name, tuple(labels.items())): value for name, labels, value in after.samples}
        assert all(
            found[name, tuple(labels.items())] >= value
            for name, labels, value in before.samples
            if name.endswith(("_total", "_count", "_bucket", "_sum"))
        )
