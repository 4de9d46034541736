"""`graphserve config`: what each option is, and where it was given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from graphserve.cli import main
from graphserve.config import explain

APP = """
from graphserve import api, depends, service

@service(workers=3, queue=9)
class Leaf:
    def __init__(self, lang: str = "en", size: int = 1) -> None: ...

    @api
    def run(self, x: int) -> int: ...

@service(timeout=7.0)
class Top:
    leaf = depends(Leaf, init={"size": 2})

    @api
    async def run(self, x: int) -> int: ...
"""
TOML = """
[tool.graphserve]
entrypoint = "app_of_config.py:Top"
port = 9123
host = "localhost"
[tool.graphserve.nodes.Leaf]
watchdog = 8.0
queue = 10
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "app_of_config.py").write_text(APP)
    (tmp_path / "pyproject.toml").write_text(TOML)
    (tmp_path / "some.env").write_text(
        "GRAPHSERVE_BACKLOG=77\nGRAPHSERVE_HOST=::1\nTOKEN=secret-1\n"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_each_value_has_the_place_that_gave_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GRAPHSERVE_SSL_KEYFILE_PASSWORD", "secret-2")
    monkeypatch.setenv("GRAPHSERVE_TIMEOUT", "5")
    monkeypatch.setenv("GRAPHSERVE_SCALE", "Leaf=4")
    code = main(
        ["config", "--json", "--env-file", "some.env", "-p", "9", "--set", "Leaf.env=A=secret-3",
         "--set", "Leaf.init.lang=ja,Leaf.workers=2", "--startup-timeout", "50",
         "--ssl-certfile", "nowhere.pem"]
    )  # fmt: skip
    out = capsys.readouterr().out
    assert code == 0
    assert "secret-" not in out
    rows = {row["option"]: (row["value"], row["source"]) for row in json.loads(out)}
    expected: dict[str, tuple[Any, str]] = {
        "port": (9, "--port"),
        "host": ("::1", f"{folder / 'some.env'}: GRAPHSERVE_HOST"),
        "backlog": (77, f"{folder / 'some.env'}: GRAPHSERVE_BACKLOG"),
        "timeout": (5.0, "GRAPHSERVE_TIMEOUT"),
        "ssl-keyfile-password": ("***", "GRAPHSERVE_SSL_KEYFILE_PASSWORD"),
        "log-level": ("info", "default"),
        "Top.timeout": (5.0, "GRAPHSERVE_TIMEOUT"),
        "Top.queue": (1024, "default"),
        "Top.startup_timeout": (50.0, "--startup-timeout"),
        "Leaf.workers": (4, "GRAPHSERVE_SCALE"),
        "Leaf.queue": (10, "pyproject.toml: nodes"),
        "Leaf.watchdog": (8.0, "pyproject.toml: nodes"),
        "Leaf.env": ({"A": "***"}, "--set"),
        "Leaf.init.lang": ("ja", "--set"),
    }
    assert {option: rows[option] for option in expected} == expected
    assert rows["entrypoint"][1] == "pyproject.toml: entrypoint"
    assert rows["Leaf.init.size"] == (2, "depends")


def test_decorators_are_named_and_a_table_is_printed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["config", "--sources", "--workers", "2", "--scale", "Top=3"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["OPTION", "VALUE", "FROM"]
    assert ["Leaf.workers", "3", "decorator"] in lines
    assert ["Top.timeout", "7.0", "decorator"] in lines
    assert ["Top.workers", "2", "--workers"] in lines
    assert ["uds", "-", "default"] in lines


def test_what_is_wrong_is_refused_as_serve_does(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["config", "--set", "Nobody.timeout=1"]) == 4
    assert "there is no node 'Nobody'" in capsys.readouterr().err
    assert main(["config", "--prot", "1"]) == 2


def test_no_option_is_left_out(tmp_path: Path) -> None:
    from graphserve.config.flags import FLAGS

    choices, nodes = explain({"entrypoint": "a:B"}, {}, tmp_path)
    assert {each.option for each in choices} == {flag.name for flag in FLAGS} - {"scale", "set"}
    assert nodes == {}
    assert {each.source for each in choices if each.option != "entrypoint"} == {"default"}
