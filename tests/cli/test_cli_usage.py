"""What the command says about itself and about mistakes; nothing is started here."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from graphserve.cli import COMMANDS, WITH_GRAPH, WITH_TARGET, commands, main
from graphserve.cli.operate import waiting_for
from graphserve.config.flags import COMMON, FLAGS

Run = Callable[..., "subprocess.CompletedProcess[str]"]
ON_THE_COMMAND_LINE = [flag for flag in FLAGS if flag.key != "entrypoint" and flag.flag]
WITH_RUN_DIR = [
    (name, "R=1") if name == "scale" else (name,) for name in ("serve", "check", *WITH_GRAPH)
]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    result = CliRunner().invoke(commands, [name, "--help"])
    assert result.exit_code == 0
    assert ("[TARGET]" in result.output) == (name in WITH_TARGET)
    assert ("--run-dir" in result.output) == (
        name in (*WITH_GRAPH, *WITH_TARGET) and name != "graph"
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_who_may_go_on_for_days_collects_garbage(name: str) -> None:
    """The supervisor does from its start on, which is after `serve` has imported it."""
    gc.disable()  # as the command begins
    try:
        with click.Context(commands) as context:
            assert commands.get_command(context, name) is not None
        assert gc.isenabled() == (name in WITH_GRAPH)
    finally:
        gc.enable()


def test_help_shows_defaults_as_they_are_written() -> None:
    text = " ".join(CliRunner().invoke(commands, ["serve", "--help"]).output.split())
    for words in ("Whether clients need a certificate. [default: none]", "body. [default: 100MiB]"):
        assert words in text


def test_an_empty_target_is_called_target(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["check", ""]) == 4
    assert (
        capfd.readouterr().err
        == "Error: TARGET='': expected module:Class or path/to/file.py:Class\n"
    )


@pytest.mark.parametrize("name", ["serve", "check"])
@pytest.mark.parametrize("flag", ON_THE_COMMAND_LINE, ids=lambda flag: flag.name)
def test_every_option_is_a_flag(name: str, flag: object) -> None:
    command = commands.get_command(None, name)  # type: ignore[arg-type]
    assert command is not None
    options = {text for parameter in command.params for text in parameter.opts}
    assert f"--{flag.name}" in options  # type: ignore[attr-defined]
    assert not flag.short or f"-{flag.short}" in options  # type: ignore[attr-defined]


def test_graph_takes_the_common_options() -> None:
    command = commands.get_command(None, "graph")  # type: ignore[arg-type]
    assert command is not None
    assert {parameter.name for parameter in command.params} == {
        *COMMON,
        "entrypoint",
        "form",
        "dot",
        "output",
    }


def test_version(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["-V"]) == main(["--version"]) == 0
    assert capfd.readouterr().out.splitlines()[0].startswith("graphserve ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["serve", "--port", "abc", "app:Gateway"],
            "--port='abc': expected a port number from 0 to 65535",
        ),
        (["serve", "--prot", "1"], "--port"),
        (["serve", "--set", "R.timeuot=5", "app:Gateway"], "did you mean 'timeout'?"),
        (["serve", "--scale", "R", "app:Gateway"], "NODE=N, such as Recognizer=2"),
        (
            ["graph", "--format", "png", "app:Gateway"],
            "'png' is not one of 'tree', 'dot', 'mermaid', 'json', 'svg'",
        ),
        (["graph", "--dot", "--format", "svg", "app:Gateway"], "--dot is --format dot"),
        (
            ["graph", "-o", "x.png", "app:Gateway"],
            "-o x.png: a .png is not drawn here; take .dot, .gv, .mmd, .json, .svg",
        ),
        (["graph", "-o", "x.PDF", "app:Gateway"], "-o x.PDF: a .pdf is not drawn here"),
        *[
            ([name, "--run-dir", "", *arguments], "--run-dir='': expected a path")
            for name, *arguments in WITH_RUN_DIR
        ],
        (["scale", "Leaf=2", "Leaf=3"], "Leaf is given twice"),
        (["scale", "Leaf=2,Leaf=2"], "Leaf is given twice"),
        (
            ["serve", "--forwarded-allow-ips", "foo", "a:B"],
            "IP addresses or networks with commas between them, or *",
        ),
        (
            ["serve", "--forwarded-allow-ips", "10.0.0.1/8", "a:B"],
            "--forwarded-allow-ips='10.0.0.1/8'",
        ),
        (
            ["check", "--allowed-hosts", "http://x", "a:B"],
            "--allowed-hosts='http://x': expected names or addresses without a port",
        ),
        (
            ["check", "--uds", "x.sock", "-p", "9000", "a:B"],
            "--port has no effect where --uds is given",
        ),
        (
            ["serve", "--uds", "x.sock", "-H", "::1", "a:B"],
            "--host has no effect where --uds is given",
        ),
        (["serve", "a:B", "c:D"], "unexpected extra argument"),
        (["sevre"], "there is no command 'sevre'; did you mean 'serve'?"),
        (["run", "app:Gateway"], "there is no command 'run'; did you mean 'serve'?"),
        (
            ["app:Gateway"],
            "there is no command 'app:Gateway'; did you mean graphserve serve app:Gateway?",
        ),
        (["xyz"], "there is no command 'xyz'; commands are serve, graph,"),
    ],
)
def test_wrong_usage_exits_2(
    arguments: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    printed = capfd.readouterr()
    assert message in printed.err
    assert "Traceback" not in printed.err
    assert printed.out == ""


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "-1", "soon"])
@pytest.mark.parametrize(
    "flag", [flag.name for flag in ON_THE_COMMAND_LINE if flag.kind.metavar == "SECONDS"]
)
def test_seconds_are_a_number(flag: str, text: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["check", f"--{flag}={text}", "a:B"]) == 2
    assert f"--{flag}={text!r}: expected a number of seconds" in capfd.readouterr().err
    assert main(["status", f"--wait={text}"]) == 2
    # (what begins with - click takes for another option, since --wait needs no value)
    said = capfd.readouterr().err
    assert text[0] == "-" or f"--wait={text!r}: expected a number of seconds from 0" in said


@pytest.mark.parametrize("name", [name for name in WITH_TARGET if name != "doctor"])
def test_no_target_exits_2_and_says_how(name: str, run: Run) -> None:
    done = run(name)
    assert done.returncode == 2
    assert 'entrypoint = "module:Class"' in done.stderr


@pytest.mark.parametrize("name", WITH_GRAPH)
def test_without_a_running_graph_exits_5(name: str, run: Run, tmp_path: Path) -> None:
    done = run(name, *(["Model=2"] if name == "scale" else []), XDG_RUNTIME_DIR=str(tmp_path))
    assert done.returncode == 5
    assert done.stdout == ""
    assert f"Error: no graph of this user is running (looked in {tmp_path}" in done.stderr


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (
            {"GRAPHSERVE_PORT": "abc"},
            "Error: GRAPHSERVE_PORT='abc': expected a port number from 0 to 65535",
        ),
        ({"GRAPHSERVE_PROT": "1"}, "did you mean 'GRAPHSERVE_PORT'?"),
        ({"GRAPHSERVE_CONFIG": "none.toml"}, "none.toml: cannot read the configuration"),
    ],
)
def test_a_wrong_configuration_exits_4(environ: dict[str, str], message: str, run: Run) -> None:
    done = run("serve", "app:Gateway", **environ)
    assert done.returncode == 4
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_help_imports_click_and_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from graphserve.cli import main; main(['serve', '--help']); heavy ="
        " {'networkx', 'circus', 'tornado', 'zmq', 'rich', 'httpx', 'msgspec', 'uvicorn',"
        " 'starlette', 'ssl', 'asyncio', 'tomllib'}; print(sorted(heavy & set(sys.modules)),"
        " file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.stderr.strip() == "[]"


def test_a_shell_completes(run: Run) -> None:
    """As docs/reference/cli.md has it."""
    done = run(**{"_GRAPHSERVE_COMPLETE": "bash_source"})
    assert "complete -o nosort -F" in done.stdout and "graphserve" in done.stdout
    done = run(
        **{
            "_GRAPHSERVE_COMPLETE": "bash_complete",
            "COMP_WORDS": "graphserve st",
            "COMP_CWORD": "1",
        }
    )
    assert done.stdout.split() == ["plain,status", "plain,stack", "plain,stop"]


@pytest.mark.parametrize(
    ("in_flight", "words"),
    [
        ([1], "waiting for 1 call in 1 workers"),
        ([2, 0], "waiting for 2 calls in 2 workers"),
        ([2, None], "waiting for 2 calls in 2 workers, 1 of which did not say what they execute"),
    ],
)
def test_what_a_stop_waits_for(in_flight: list[int | None], words: str) -> None:
    assert waiting_for([{"in_flight": count} for count in in_flight]) == words
