"""What mypy --strict and pyright say about services: the cases are in tests/typing, one function a
kind.

A comment `# R: <type>` tells what `reveal_type` says there (`…` stands for anything), `# E: <codes of mypy> | <rules
of pyright>` which errors there are. Anything else that a checker says fails its case.
"""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

CASES = Path(__file__).parent / "typing"
FILES = sorted(path.name for path in CASES.glob("*.py"))
CHECKERS = ("mypy", "pyright")
SECONDS = 300  # a checker on a cold cache and a busy machine


@dataclass(frozen=True)
class Finding:
    """What a checker says about a line: a revealed type, or the code of an error."""

    file: str
    line: int
    reveals: str = ""
    code: str = ""


@dataclass(frozen=True)
class Case:
    """A function of a case file and its lines, or the rest of the file."""

    file: str
    name: str
    lines: frozenset[int]


def cases() -> Iterator[Case]:
    for file in FILES:
        text = (CASES / file).read_text(encoding="utf-8")
        rest = set(range(1, len(text.splitlines()) + 1))
        for statement in ast.parse(text).body:
            if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = range(statement.lineno, (statement.end_lineno or 0) + 1)
                rest -= set(lines)
                yield Case(file, statement.name, frozenset(lines))
        yield Case(file, "the_rest", frozenset(rest))


def expected(case: Case, checker: str) -> set[Finding]:
    found = set()
    for number, line in enumerate((CASES / case.file).read_text(encoding="utf-8").splitlines(), 1):
        if number not in case.lines:
            continue
        if match := re.search(r"# R: (.+)", line):
            found.add(Finding(case.file, number, reveals=match[1].strip()))
        if match := re.search(r"# E: (.*)\|(.*)", line):
            codes = match[1 + CHECKERS.index(checker)].split(",")
            found |= {
                Finding(case.file, number, code=code.strip()) for code in codes if code.strip()
            }
    return found


def told_apart(found: set[Finding], wanted: set[Finding]) -> set[Finding]:
    """The findings, each revealed type replaced by the pattern with `…` that it matches."""
    patterns = {(want.file, want.line): want for want in wanted if want.reveals}
    result = set()
    for finding in found:
        want = patterns.get((finding.file, finding.line))
        pattern = re.escape(want.reveals).replace("…", ".*") if want and finding.reveals else ""
        result.add(want if want and pattern and re.fullmatch(pattern, finding.reveals) else finding)
    return result


def short(kind: str) -> str:
    """A type as both checkers write it: without the modules of its names."""
    return re.sub(r"\b(?:\w+\.)+(?=\w)", "", kind)


def mypy(folder: Path, cache: Path) -> set[Finding]:
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--output",
        "json",
        "--cache-dir",
        str(cache),
        *FILES,
    ]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS)
    assert run.returncode in (0, 1), run.stdout + run.stderr
    found = set()
    for said in map(json.loads, run.stdout.splitlines()):
        if said["severity"] == "error":
            found.add(Finding(said["file"], said["line"], code=said["code"]))
        elif match := re.fullmatch(r'Revealed type is "(.*)"', said["message"]):
            found.add(Finding(said["file"], said["line"], reveals=short(match[1])))
    return found


def pyright(folder: Path) -> set[Finding]:
    # basedpyright is pyright with a Node.js that pip installs; in the mode "strict" it checks what
    # pyright checks.
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "--pythonpath", sys.executable]
    (folder / "pyrightconfig.json").write_text(
        json.dumps({"typeCheckingMode": "strict"}), encoding="utf-8"
    )
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS)
    assert run.returncode in (0, 1), run.stdout + run.stderr
    found = set()
    for said in json.loads(run.stdout)["generalDiagnostics"]:
        file, line = Path(said["file"]).name, said["range"]["start"]["line"] + 1
        if said["severity"] == "error":
            found.add(Finding(file, line, code=said["rule"]))
        elif match := re.fullmatch(r'Type of ".*" is "(.*)"', said["message"]):
            found.add(Finding(file, line, reveals=short(match[1])))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cases in a folder of their own, where no configuration of this project is in force."""
    return Path(shutil.copytree(CASES, tmp_path_factory.mktemp("typing") / "cases"))


@pytest.fixture(scope="module")
def said(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[Finding]]:
    """What each checker finds in all the cases."""
    return {"mypy": mypy(folder, tmp_path_factory.mktemp("mypy")), "pyright": pyright(folder)}


@pytest.mark.timeout(2 * SECONDS)
@pytest.mark.parametrize(
    "case", list(cases()), ids=lambda case: f"{case.file.removesuffix('.py')}-{case.name}"
)
@pytest.mark.parametrize("checker", CHECKERS)
def test_case(said: dict[str, set[Finding]], checker: str, case: Case) -> None:
    wanted = expected(case, checker)
    found = {
        finding
        for finding in said[checker]
        if finding.file == case.file and finding.line in case.lines
    }
    assert told_apart(found, wanted) == wanted
