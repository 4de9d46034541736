"""The alert rules of the documentation: what they ask for is there, and they fire when they should."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import graphserve
from graphserve.metrics.families import FAMILIES

PAGE = Path(graphserve.__file__).parents[1] / "docs" / "how-to" / "metrics.md"
RULES = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[0]
NAMES = {
    family.name + suffix: set(family.labels)
    for family in FAMILIES
    for suffix in (("_count", "_sum", "_bucket") if family.type == "histogram" else ("",))
}
PORT = 'http_server_request_duration_seconds_count{service="Front",http_route="/a",http_request_method="POST"'
EDGE = 'graphserve_call_duration_seconds_count{caller="Front",service="Back",api="a"'
# by alert: series for a quarter of an hour that it fires for, a value a minute; and its labels
FIRES = {
    "GraphserveErrors": (
        [(PORT + ',http_response_status_code="200"}', "0+9x20"), (PORT + ',http_response_status_code="599"}', "0+1x20")],
        'service: Front',
    ),
    "GraphserveCallsFail": (
        [(EDGE + ',outcome="ok"}', "0+9x20"), (EDGE + ',outcome="deadline"}', "0+1x20")],
        "caller: Front, service: Back, api: a",
    ),
    "GraphserveQueueFills": (
        [('graphserve_queue_length{service="Back"}', "9x20"), ('graphserve_queue_limit{service="Back"}', "10x20")],
        "service: Back",
    ),
    "GraphserveSheds": ([('graphserve_shed_total{service="Back",reason="late"}', "0+1x20")], "service: Back, reason: late"),
    "GraphserveWorkersDie": (
        [('graphserve_worker_restarts_total{service="Back",reason="died"}', "0+1x20")],
        "service: Back, reason: died",
    ),
    "GraphserveNoWorker": ([('graphserve_workers{service="Back",state="ready"}', "0x20")], "service: Back"),
    "GraphserveLoopBlocked": (
        [('graphserve_loop_lag_seconds{service="Back",slot="1"}', "2x20")],
        'service: Back, slot: "1"',
    ),
}  # fmt: skip


def summary(alert: str) -> str:
    """What an alert says, as it is written."""
    found = re.search(rf'- alert: {alert}\n.*?summary: "(.*?)"\n', RULES, re.DOTALL)
    assert found is not None
    return found[1]


def test_rules_ask_for_metrics_and_labels_that_there_are() -> None:
    asked = re.findall(r"\b((?:http|graphserve|process)_\w+)(?:\{(.*?)\})?", RULES)
    assert len(asked) > 7
    for name, matchers in asked:
        assert set(re.findall(r"(\w+)[=!]~?", matchers)) <= NAMES[name], name


def test_each_rule_is_tried() -> None:
    assert re.findall(r"- alert: (\w+)", RULES) == list(FIRES)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="there is no promtool")
def test_rules_fire(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    checks = []
    for alert, (series, labels) in FIRES.items():
        inputs = "".join(
            f"      - {{series: '{name}', values: '{values}'}}\n" for name, values in series
        )
        said = dict(each.split(": ") for each in labels.split(", "))
        words = summary(alert)
        for name, value in said.items():
            words = words.replace(f"{{{{ $labels.{name} }}}}", value.strip('"'))
        checks.append(
            f"  - interval: 1m\n    input_series:\n{inputs}    alert_rule_test:\n"
            f"      - eval_time: 15m\n        alertname: {alert}\n        exp_alerts:\n"
            f"          - exp_labels: {{{labels}}}\n"
            f"            exp_annotations: {{summary: '{words}'}}\n"
        )
    test = "rule_files: [rules.yaml]\nevaluation_interval: 1m\ntests:\n" + "".join(checks)
    (tmp_path / "test.yaml").write_text(test)
    for command in (["check", "rules", "rules.yaml"], ["test", "rules", "test.yaml"]):
        done = subprocess.run(
            ["promtool", *command], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
