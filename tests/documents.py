"""The documentation as programs: what the code blocks of a page say, and how a page is run.

For tests.

A page runs in a folder of its own, block by block:

- A block whose first line is `# name.py` (or `.toml`, `.env`, `.sh`, …) is written to that file.
- `python` is run; a file of it is too, unless the page imports it or runs it.
- `ipython` blocks are the cells of one notebook.
- `toml` is loaded as configuration. `json` has to parse.
- `console` is run: `$ command`, then what it prints; `^C` is Ctrl-C. `...` stands for any lines.
  `graphserve serve` runs until the page ends, the next one starts, or `^C`; port 8000 is a free one
  in truth.
- Whatever else (`sh`, `nginx`, `ini`, `dockerfile`, `text`, `mermaid`, `svg`) is only looked at.
- `<!-- files: other.md -->` writes the files of another page first; `<!-- folder: examples/hello
  -->` copies a folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from graphserve import config
from tests.harness import Served, eventually

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
# libraries of examples that the tests do without: they are large
LIBRARIES = {"recommender": "sklearn"}
LIMIT = 60  # seconds that one command may take
_FENCE = re.compile(r"^ {0,3}```(\w*)[^\n]*\n(.*?)^ {0,3}```$", re.DOTALL | re.MULTILINE)
_NAME = re.compile(r"(?:#|%%writefile) ([\w./-]*\.[a-z]+)$")
_DIRECTIVE = re.compile(r"<!-- (files|folder): (\S+) -->")
_VARYING = (
    (r"\b\d\d:\d\d:\d\d\b", "12:00:00"),
    (r"\b\d+(\.\d+)?( ?)(ms|s)\b", r"0.1\2\3"),
    (r"(127\.0\.0\.1|localhost):\d+", r"\1:8000"),
    (r"\b[0-9a-f]{16}\b", "0123456789abcdef"),
    (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "2026-01-01T00:00:00.000Z"),
    (r"--run-dir \S*/graphserve-\w+", "--run-dir /run/user/1000/graphserve-2kq8x1ab"),
    (r'"pid": ?\d+', '"pid": 1000'),
    (r'"(seconds|ms)": ?[\d.]+', r'"\1": 0.1'),
    (r"(?im)^date: .*$", "date: today"),
    (r" +\[100%\]", " [100%]"),
    (r"[ \t\r]+$", ""),
)


@dataclass(frozen=True)
class Block:
    """A fenced code block: its language tag, its text, the file it names, and the line where it
    begins.
    """

    language: str
    text: str
    name: str | None
    line: int


@dataclass(frozen=True)
class Step:
    """A command of a `console` block, what it should print, and whether Ctrl-C ends it."""

    command: str
    expected: str
    interrupted: bool
    after: str = ""


def pages() -> list[Path]:
    """Every page of the documentation."""
    return [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def skip_without_library(example: str) -> None:
    """Skip a test of an example whose library is not installed."""
    if example in LIBRARIES:
        needed = f"the example {example} needs what its README installs"
        pytest.importorskip(LIBRARIES[example], reason=needed)


def fields(page: str, title: str) -> set[str]:
    """The names in the first column of the table below a title of a page."""
    text = (DOCS / page).read_text(encoding="utf-8").split(f"\n### {title}\n")[1].split("\n#")[0]
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return set(re.findall(r"`(\w+)`", " ".join(cells)))


def blocks(text: str) -> list[Block]:
    """The code blocks of a page."""
    found = []
    for match in _FENCE.finditer(text):
        first = match[2].partition("\n")[0]
        name = _NAME.match(first)
        found.append(
            Block(
                match[1],
                match[2],
                name[1] if name else None,
                text.count("\n", 0, match.start()) + 1,
            )
        )
    return found


def steps(text: str) -> list[Step]:
    """The commands of a `console` block."""
    found = []
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        lines = part.split("\n")
        command = lines.pop(0)
        while command.endswith("\\"):
            command = command[:-1] + lines.pop(0).strip()
        before, stop, after = "\n".join(lines).partition("^C\n")
        found.append(Step(command, before.strip("\n"), bool(stop), after.strip("\n")))
    return found


def steady(text: str) -> str:
    """The text without what differs in every run: clocks, durations, ports, ids."""
    for pattern, same in _VARYING:
        text = re.sub(pattern, same, text, flags=re.MULTILINE)
    return text.strip("\n")


def matches(shown: str, actual: str) -> bool:
    """Whether a page shows what a command printed; JSON may be wrapped, and `...` stands for any
    lines.
    """
    shown, actual = steady(shown), steady(actual)
    with contextlib.suppress(ValueError):
        return bool(json.loads(shown) == json.loads(actual))
    lines = (
        "(?:.*\n)*?" if line == "..." else re.escape(line) + "\n" for line in shown.splitlines()
    )
    return re.fullmatch("".join(lines), actual + "\n" if actual else "") is not None


def lines_in_order(shown: str, log: str) -> bool:
    """Whether the lines that a page shows stand in a log in that order."""
    at, log = 0, steady(log)
    for line in steady(shown).splitlines():
        at = at if line == "..." else log.find(line, at) + 1
        if line != "..." and not at:
            return False
    return True


class Page:
    """A page that is run.

    Args:
        path: the page.
        folder: where its files go and its commands run.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        self.path, self.folder, self.text = path, folder, path.read_text(encoding="utf-8")
        self.cells: list[str] = []
        self.graph: Served | None = None
        self.port = "8000"
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("GRAPHSERVE_")
        }
        self.environment["PATH"] = f"{Path(sys.executable).parent}:{self.environment['PATH']}"
        self.runtime = Path(tempfile.mkdtemp(prefix="gs-docs-"))  # short: sockets lie in it
        self.environment |= {
            "XDG_RUNTIME_DIR": str(self.runtime),
            "NO_COLOR": "1",
            "COLUMNS": "110",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        }

    def run(self) -> None:
        """Run every block in order."""
        for kind, value in _DIRECTIVE.findall(self.text):
            if kind == "folder":
                shutil.copytree(ROOT / value, self.folder / value, dirs_exist_ok=True)
                continue
            for block in blocks((self.path.parent / value).read_text(encoding="utf-8")):
                if block.name:
                    self.write(block)
        for block in blocks(self.text):
            with self.place(block):
                self.block(block)
        if self.cells:
            self.notebook()
        self.stop()
        assert not list(self.runtime.iterdir()), "a graph left its run folder behind"

    def block(self, block: Block) -> None:
        """Run one block."""
        if block.name:
            self.write(block)
        match block.language:
            case "python" if block.name and not self.uses(block):
                self.python(
                    ["-c", f"import runpy; runpy.run_path({block.name!r}, run_name='imported')"]
                )
            case "python" if not block.name:
                file = self.folder / "block.py"
                file.write_text(block.text)
                self.python([file.name])
            case "ipython" if not block.name:
                self.cells.append(block.text)
            case "toml":
                self.toml(block)
            case "json":
                json.loads(block.text)
            case "console":
                for step in steps(block.text):
                    self.step(step)

    def uses(self, block: Block) -> bool:
        """Whether another block runs a file, or imports it."""
        assert block.name is not None
        module = re.escape(Path(block.name).stem)
        used = re.compile(rf"{re.escape(block.name)}\b|\b(from|import) {module}\b|\b{module}:\w")
        return any(
            used.search(other.text) for other in blocks(self.text) if other.name != block.name
        )

    def write(self, block: Block) -> None:
        """Write the file that a block is."""
        assert block.name is not None
        file = self.folder / block.name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(
            block.text.partition("\n")[2] if block.text.startswith("%%") else block.text
        )

    def python(self, arguments: list[str]) -> None:
        """Run Python to its end."""
        done = self.done([sys.executable, *arguments])
        assert done.returncode == 0, done.stdout

    def notebook(self) -> None:
        """Run the cells, with `await` at their top level as notebooks have it."""
        file = self.folder / "cells.py"
        file.write_text("\n".join(self.cells))
        runner = (
            "import ast, asyncio, inspect\n"
            "code = compile(open('cells.py').read(), 'cell', 'exec', ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)\n"
            "async def main():\n"
            "    found = eval(code, {'__name__': 'cell'})\n"
            "    if inspect.isawaitable(found): await found\n"
            "asyncio.run(main())"
        )
        self.python(["-c", runner])

    def toml(self, block: Block) -> None:
        """Load a configuration file."""
        assert block.name, "a toml block begins with the name of its file"
        given = {"entrypoint": "app:Gateway"} | (
            {} if block.name == "pyproject.toml" else {"config": block.name}
        )
        config.load(given, {}, self.folder)

    def step(self, step: Step) -> None:
        """Run one command."""
        words = shlex.split(step.command)
        if re.match(r"(\w+=\S+ )*graphserve serve|.* && graphserve serve", step.command):
            words = shlex.split(step.command.rpartition("&& ")[2])  # what installs was done before
            self.serve(step, words)
        elif step.interrupted:
            self.interrupted(step)
        else:
            done = self.done(step.command.replace(":8000", f":{self.port}"), shell=True)
            assert matches(step.expected, done.stdout), (
                f"{step.command} printed\n{steady(done.stdout)}"
            )

    def serve(self, step: Step, words: list[str]) -> None:
        """Start a graph; it runs on when this returns, unless it is shown to fail or to be
        interrupted.
        """
        self.stop()
        given = dict(word.split("=", 1) for word in words[: words.index("graphserve")])
        target, *rest = words[words.index("serve") + 1 :] or ["--port=0"]
        self.graph = graph = Served(target, *rest, cwd=self.folder, env=self.environment | given)
        if "Error: " in step.expected:
            graph.wait_exit(LIMIT)
            assert matches(step.expected, graph.text), (
                f"{step.command} printed\n{steady(graph.text)}"
            )
            return
        graph.wait_ready(LIMIT)
        found = re.search(r":(\d+)", graph.url)
        self.port = found[1] if found else ""
        self.log_shows(graph, step.expected)
        if step.interrupted:
            graph.signal(signal.SIGINT)
            assert graph.wait_exit(LIMIT) == 0
            self.log_shows(graph, step.after)

    def log_shows(self, graph: Served, shown: str) -> None:
        """Wait until the log has these lines."""
        try:
            eventually(lambda: lines_in_order(_without(shown, "".join(graph.out)), graph.text))
        except AssertionError:
            raise AssertionError(
                f"the log does not show\n{steady(shown)}\nbut\n{steady(graph.text)}"
            ) from None

    def interrupted(self, step: Step) -> None:
        """Run a program until it printed what is shown, then press Ctrl-C."""
        with tempfile.TemporaryFile("w+") as output:
            process = subprocess.Popen(
                shlex.split(step.command), cwd=self.folder, env=self.environment | {"PYTHONUNBUFFERED": "1"},
                stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
            try:
                eventually(lambda: lines_in_order(step.expected, _read(output)), LIMIT)
                process.send_signal(signal.SIGINT)
                assert process.wait(LIMIT) == 0, _read(output)
                assert lines_in_order(step.after, _read(output)), _read(output)
            finally:
                process.kill()
                process.wait()

    def done(
        self, command: str | list[str], shell: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """A command that has ended."""
        done = subprocess.run(
            command, shell=shell, cwd=self.folder, env=self.environment, timeout=LIMIT,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        done.stdout = done.stdout.replace(str(self.folder), "/srv/app")
        return done

    def stop(self) -> None:
        """Stop the graph that runs, as a user would."""
        graph, self.graph = self.graph, None
        if graph is not None:
            try:
                if graph.process.poll() is None:
                    assert graph.stop() == 0, graph.text
            finally:
                graph.close()

    def close(self) -> None:
        """End what still runs."""
        if self.graph is not None:
            self.graph.close()
        shutil.rmtree(self.runtime, ignore_errors=True)

    @contextlib.contextmanager
    def place(self, block: Block) -> Iterator[None]:
        """Name the block in the message of a failure."""
        try:
            yield
        except (AssertionError, subprocess.SubprocessError, ValueError) as exc:
            log = f"\n\nthe graph says:\n{self.graph.text}" if self.graph is not None else ""
            raise AssertionError(f"{self.path.relative_to(ROOT)}:{block.line}: {exc}{log}") from exc


def _without(shown: str, printed: str) -> str:
    # What workers print goes to stdout, the log to stderr: nobody knows which came first.
    seen = steady(printed).splitlines()
    return "\n".join(line for line in steady(shown).splitlines() if line not in seen)


def _read(output: object) -> str:
    return Path(f"/proc/self/fd/{output.fileno()}").read_text()  # type: ignore[attr-defined]
