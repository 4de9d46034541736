"""The pages about the code name what is there: paths, classes, functions; and the house is drawn as
it is.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.documents import DOCS, ROOT, pages
from tests.measuring.house import PAGE, Package, drawn_into, picture

HOUSE = Package(ROOT / "graphserve")
GUIDES = [DOCS / "explanation" / "code-tour.md", DOCS / "explanation" / "glossary.md"]
QUOTED = re.compile(r"`([^`\n]+)`")
PATH = re.compile(r"[a-z_]+(/[a-z_]+)*(\.py|/)")
NAME = re.compile(r"_{0,2}[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z_]+)*")
# What users write, and names of the examples in the text: these are explained elsewhere.
SAID = {
    "Gateway",
    "Counter",
    "Counter.count",
    "init",
    "local",
    "ps",
    "scale",
    "reload",
    "RemoteError",
}


TOPS = ("graphserve/", "tests/", "docs/", "examples/")
ROOMS = tuple(f"{path.name}/" for path in HOUSE.root.iterdir() if path.is_dir())


@cache
def names(path: Path) -> frozenset[str]:
    """What a file defines, `Class.method` for methods; what it imports is not its own."""

    def walk(body: list[ast.stmt], prefix: str) -> Iterator[str]:
        for node in body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield prefix + node.name
            if isinstance(node, ast.ClassDef):
                yield from walk(node.body, f"{prefix}{node.name}.")
            if isinstance(node, ast.AnnAssign | ast.Assign):
                targets = [node.target] if isinstance(node, ast.AnnAssign) else node.targets
                yield from (
                    prefix + target.id for target in targets if isinstance(target, ast.Name)
                )

    return frozenset(walk(ast.parse(path.read_text(encoding="utf-8")).body, ""))


def items(text: str) -> Iterator[str]:
    """The rows, list items and paragraphs of a page."""
    yield from re.split(r"\n\n|\n(?=\||\d+\. |- )", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def missing(text: str) -> Iterator[str]:
    """Paths and names in a text about the code that are not there."""
    for item in items(text):
        quoted = QUOTED.findall(item)
        paths = [place(each) for each in quoted if PATH.fullmatch(each)]
        yield from (str(path.relative_to(ROOT)) for path in paths if not path.exists())
        files = [path for path in paths if path.is_file()] or list(HOUSE.modules.values())
        defined = {name for path in files for name in names(path)}
        for each in quoted:
            if NAME.fullmatch(each) and not PATH.fullmatch(each) and each not in SAID | defined:
                yield (
                    f"{each} in"
                    f" {', '.join(str(path.relative_to(ROOT)) for path in paths) or 'graphserve'}"
                )


def place(path: str) -> Path:
    """Return where a path leads: from the top of the repository, or from the folder of the
    package.
    """
    return (ROOT if path.startswith(TOPS) else HOUSE.root) / path


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)
def test_what_a_guide_names_is_in_the_code(page: Path) -> None:
    assert not list(missing(page.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("text", "gone"),
    [
        ("`worker/process.py`: `SupervisedProcess.live` waits", []),
        ("- `worker/process.py`: `Worker.lives`", ["Worker.lives in graphserve/worker/process.py"]),
        ("`worker/nowhere.py` is gone", ["graphserve/worker/nowhere.py"]),
        ("`Supervisor` and `Superviser`", ["Superviser in graphserve"]),
    ],
)
def test_what_is_gone_is_found(text: str, gone: list[str]) -> None:
    assert list(missing(text)) == gone


def paths_of_code(page: Path) -> list[str]:
    """The paths of our files that a page names in its text; those in code blocks are the reader's
    own.
    """
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [
        each for each in QUOTED.findall(text) if re.fullmatch(r"[\w.]+(/[\w.-]+)+(\.\w+|/)", each)
    ]


@pytest.mark.parametrize(
    "page", [*pages(), ROOT / "CONTRIBUTING.md"], ids=lambda page: str(page.relative_to(ROOT))
)
def test_paths_that_a_page_names_exist(page: Path) -> None:
    named = [place(each) for each in paths_of_code(page) if each.startswith((*TOPS, *ROOMS))]
    assert not [path for path in named if not path.exists()]


def test_the_house_is_drawn_as_it_is() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert drawn_into(text, picture(HOUSE)) == text, "draw it anew: python -m tests.measuring.house"
