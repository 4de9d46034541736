"""README.md and docs/: every block runs as it stands there, every link leads somewhere, every
option is listed.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import graphserve
from graphserve import errors
from graphserve.cli import COMMANDS, commands
from graphserve.config.flags import FLAGS
from graphserve.config.values import CERT_REQS, SWITCH, ValueSource
from graphserve.declare.options import ServiceOptions
from graphserve.errors import ExitCode, GraphServeError
from graphserve.graph.plan import ApiPlan, EdgePlan, ListenPlan, NodePlan, Plan, TlsPlan
from graphserve.wire import extensions
from tests.documents import DOCS, ROOT, Page, blocks, matches, pages, steps

RUN = frozenset({"python", "ipython", "toml", "json", "console"})
SHOWN = frozenset(
    {"javascript", "sh", "nginx", "ini", "dockerfile", "text", "mermaid", "ts", "yaml"}
)
EXAMPLES = sorted((ROOT / "examples").rglob("README.md"))
REFERENCE = DOCS / "reference"


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def run(path: Path, folder: Path) -> None:
    page = Page(path, tutorial_folder(folder) if path.parent == DOCS / "tutorial" else folder)
    try:
        page.run()
    finally:
        page.close()


def tutorial_folder(place: Path) -> Path:
    """Where the first page of the tutorial leaves its reader, who begins in a clone."""
    clone = place / "clone"
    clone.mkdir()
    for path in ROOT.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copy(path, clone)
    first = next(
        block
        for block in blocks((DOCS / "tutorial/first-graph.md").read_text())
        if block.language == "sh"
    )
    moves = [line for line in first.text.splitlines() if line.startswith(("mkdir ", "cd "))]
    script = "\n".join(["set -e", f"cd {clone}", *moves, "pwd"])
    return Path(
        subprocess.run(
            ["sh", "-c", script], check=True, capture_output=True, text=True
        ).stdout.strip()
    )


def test_commands_of_a_newcomer_make_an_environment() -> None:
    """Pythons of distributions refuse `pip install` outside of one (PEP 668); the README has two
    commands.
    """
    commands = [
        block.text.strip()
        for block in blocks((ROOT / "README.md").read_text())
        if block.language == "sh"
    ]
    installing = [command for command in commands if "pip" in command]
    assert len(installing) == 2
    for command in installing:
        made, *used = command.split(" && ")
        assert made == "python3 -m venv .venv"
        assert all(each.startswith(".venv/bin/") for each in used), command
    for path in [ROOT / "CONTRIBUTING.md", *EXAMPLES, *pages()]:
        for block in blocks(path.read_text()):
            if "pip install" in block.text and block.language != "dockerfile":
                said = path.read_text().partition("pip install")[0]
                assert "venv" in said or "virtual environment" in said, path


@pytest.fixture(scope="module")
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[Path, Future[None]]]:
    """The pages that were asked for, two at a time: a page mostly waits for processes."""
    chosen = [
        item.callspec.params["path"]
        for item in request.session.items
        if item.name.startswith("test_the_blocks_")
    ]  # type: ignore[attr-defined]
    with ThreadPoolExecutor(2) as pool:
        yield {path: pool.submit(run, path, tmp_path_factory.mktemp("page")) for path in chosen}
        pool.shutdown(cancel_futures=True)


def running_pages() -> Iterator[Any]:
    """Those with something to run; what a newcomer reads first is always tested."""
    for path in pages():
        if RUN & {block.language for block in blocks(path.read_text())}:
            first = path.parent in (ROOT, DOCS / "tutorial")
            yield pytest.param(path, id=name_of(path), marks=() if first else pytest.mark.slow)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("path", [*running_pages()])
def test_the_blocks_of_a_page_run(path: Path, running: dict[Path, Future[None]]) -> None:
    running[path].result()


@pytest.mark.parametrize("path", [*pages(), *EXAMPLES], ids=name_of)
def test_a_page_is_whole(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"\b(TODO|FIXME|XXX|TBD)\b", text)
    assert text.count("```") % 2 == 0
    unknown = {block.language for block in blocks(text)} - RUN - SHOWN
    assert not unknown or unknown == {""}, f"a block is {unknown}: neither run nor known as text"
    broken = [target for target in links(text) if not leads_somewhere(path, target)]
    assert not broken


def links(text: str) -> list[str]:
    prose = re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.DOTALL)
    return [
        target
        for target in re.findall(r"\]\(([^)\s]+)\)", prose)
        if not target.startswith(("http://", "https://"))
    ]


def leads_somewhere(path: Path, target: str) -> bool:
    file, _, anchor = target.partition("#")
    found = (path.parent / file).resolve() if file else path
    if not anchor:
        return found.exists()
    return found.is_file() and anchor in {
        slug(heading) for heading in re.findall(r"^#+ (.*)$", found.read_text(), re.MULTILINE)
    }


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_every_page_is_in_the_index() -> None:
    index = DOCS / "index.md"
    listed = {(DOCS / target).resolve() for target in links(index.read_text())}
    listed |= {
        (DOCS / "explanation/decisions" / t).resolve()
        for t in links((DOCS / "explanation/decisions/README.md").read_text())
    }
    measured = {DOCS / "benchmarks.md", DOCS / "faults.md"}  # written when they are measured
    assert set(DOCS.rglob("*.md")) - {index} - measured <= listed


def test_shown_commands_have_flags_that_exist() -> None:
    known = {f"--{flag.name}" for flag in FLAGS} | {f"--no-{flag.name}" for flag in FLAGS}
    known |= {
        option
        for name in COMMANDS
        for parameter in commands.get_command(None, name).params
        for option in parameter.opts
    }  # type: ignore[arg-type,union-attr]
    for path in [*pages(), *EXAMPLES]:
        for block in blocks(path.read_text()):
            for line in block.text.replace("\\\n", " ").splitlines():
                if found := re.search(r"\bgraphserve ((?:serve|graph|check)\b.*)", line):
                    used = re.findall(r"(?<![\w-])--[a-z][a-z-]*", found[1].partition(" && ")[0])
                    assert set(used) <= known | {"--version", "--help"}, f"{path.name}: {line}"


# --- the reference ---


def rows(page: str) -> list[list[str]]:
    """The rows of all tables of a page of the reference."""
    lines = (REFERENCE / page).read_text().splitlines()
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in lines
        if line.startswith("|")
    ]


def codes(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_the_table_of_flags_is_complete() -> None:
    table = {codes(row[0])[0]: row for row in rows("cli.md") if codes(row[0]) and len(row) == 4}
    for flag in FLAGS:
        if flag.key == "entrypoint" or not flag.flag:
            continue
        row = table.pop(f"--{flag.name}", None)
        assert row is not None, f"--{flag.name} is missing"
        assert codes(row[0])[1:] == ([f"-{flag.short}"] if flag.short else []) + (
            [f"--no-{flag.name}"] if flag.kind is SWITCH else []
        )
        assert codes(row[1]) == [flag.variable]
    assert not table, "these flags do not exist"


def test_the_table_of_flags_has_their_defaults() -> None:
    table = {
        codes(row[0])[0]: codes(row[2]) for row in rows("cli.md") if codes(row[0]) and len(row) == 4
    }
    for flag in FLAGS:
        if flag.flag and flag.default not in (None, "", (), False) and flag.kind is not CERT_REQS:
            assert (
                flag.kind.parse(table[f"--{flag.name}"][0], ValueSource("", ROOT)) == flag.default
            ), flag.name


def test_options_without_a_flag_are_in_the_page_of_files() -> None:
    text = (REFERENCE / "configuration.md").read_text()
    assert [
        flag.name
        for flag in FLAGS
        if not flag.flag and not (f"`{flag.name}`" in text and flag.variable in text)
    ] == []


def test_every_command_has_a_section() -> None:
    headings = re.findall(
        r"^## `graphserve (\w+)", (REFERENCE / "cli.md").read_text(), re.MULTILINE
    )
    assert headings == list(COMMANDS)


def test_the_table_of_service_options_is_complete() -> None:
    table = {codes(row[0])[0]: row for row in rows("options.md") if len(row) == 4 and codes(row[0])}
    for field in dataclasses.fields(ServiceOptions):
        row = table[field.name]
        default = {} if field.default is dataclasses.MISSING else field.default
        assert codes(row[2]) == [repr(default)]


def test_every_public_name_is_in_the_reference() -> None:
    text = (REFERENCE / "python.md").read_text() + (REFERENCE / "errors.md").read_text()
    assert [
        name
        for name in graphserve.__all__
        if f"`{name}" not in text and f"graphserve.{name}" not in text
    ] == []


def test_the_tree_of_errors_is_that_of_the_module() -> None:
    text = (REFERENCE / "errors.md").read_text()
    for name, value in vars(errors).items():
        if isinstance(value, type) and issubclass(value, GraphServeError):
            assert re.search(rf"\b{name}\b", text), name


def test_the_exit_codes_are_listed() -> None:
    listed = {int(codes(row[0])[0]) for row in rows("exit-codes.md") if row and codes(row[0])}
    assert listed == set(ExitCode)


@pytest.mark.parametrize(
    "kind", [Plan, NodePlan, EdgePlan, ApiPlan, ListenPlan, TlsPlan], ids=lambda kind: kind.__name__
)
def test_the_fields_of_the_plan_are_listed(kind: type) -> None:
    section = re.search(
        rf"^## .*`{kind.__name__}`\n(.*?)(?=^## |\Z)",
        (REFERENCE / "plan.md").read_text(),
        re.DOTALL | re.MULTILINE,
    )
    assert section is not None
    listed = re.findall(r"^\| `(\w+)` ", section[1], re.MULTILINE)
    assert set(listed) == {field.name for field in dataclasses.fields(kind)}


def test_the_extension_types_are_listed() -> None:
    listed = {
        int(codes(row[0])[0])
        for row in rows("wire.md")
        if row and codes(row[0]) and codes(row[0])[0].isdigit()
    }
    assert listed == {
        extensions.ARRAY,
        extensions.REFERENCE,
        extensions.MODEL,
        extensions.INTEGER,
        extensions.MEDIA,
    }


# --- the runner itself ---


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("a\n...\nb", "a\nx\ny\nb", True),
        ("a\n...", "a\nx", True),
        ("a\n...\nb", "a\nb", True),
        ("a\nb", "a\nx\nb", False),
        ("a", "b", False),
        (
            '{\n "x": 1,\n "request_id": "0123456789abcdef"}',
            '{"x":1,"request_id":"fedcba9876543210"}',
            True,
        ),
        ('{"x": 1}', '{"x": 2}', False),
        ("12:00:00 ready 0.3 s", "23:59:59 ready 12.52 s", True),
    ],
)
def test_what_a_page_shows_is_compared(shown: str, printed: str, same: bool) -> None:
    assert matches(shown, printed) is same


def test_a_console_block_is_taken_apart() -> None:
    found = steps("$ one\nout\n$ two \\\n  more\n^C\nlast\n")
    assert [(s.command, s.expected, s.interrupted, s.after) for s in found] == [
        ("one", "out", False, ""),
        ("two more", "", True, "last"),
    ]
