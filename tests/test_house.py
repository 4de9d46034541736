"""The house: which module may import which, where each library lives, what an import costs."""

from __future__ import annotations

import ast
import builtins
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import graphserve
from tests.measuring.house import DOCUMENTED, ORDER, Package, room_of

ROOT = Path(graphserve.__file__).parent
HOUSE = Package(ROOT)

TIER = {room: tier for tier, rooms in enumerate(ORDER) for room in rooms}

# One third-party library, one room; `call` and `worker` both speak HTTP by httptools.
HOMES = {
    "circus": {"supervise"},
    "click": {"cli"},
    "h11": {"supervise"},
    "httptools": {"call", "worker"},
    "httpx": {"call"},
    "msgspec": {"wire"},
    "networkx": {"graph"},
    "numpy": {"wire"},
    "PIL": {"wire"},
    "pandas": {"wire"},
    "polars": {"wire"},
    "pyarrow": {"wire"},
    "pydantic": {"wire"},
    "pydantic_core": {"wire"},
    "python_multipart": {"wire"},
    "rich": {"cli"},
    "a2wsgi": {"worker"},
    "starlette": {"worker"},
    "torch": {"wire"},
    "tornado": {"supervise"},
    "uvicorn": {"worker"},
    "uvloop": {"worker"},
    "watchfiles": {"supervise"},
    "websockets": {"worker"},
}
# Folders that the rest of their room imports nothing of: who reads that never needs them.
APART = ("wire.openapi", "worker.http.public")
PUBLIC_NAMES = 30
HEAVY = (
    "PIL",
    "circus",
    "click",
    "httpx",
    "msgspec",
    "networkx",
    "numpy",
    "pydantic",
    "python_multipart",
    "rich",
    "tornado",
    "websockets",
    "zmq",
)


def modules() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT.parent))


def room(path: Path) -> str:
    """The room that a file belongs to: its folder at the top, its own name where it stands at the
    root or lower.
    """
    return room_of(".".join(path.relative_to(ROOT).with_suffix("").parts))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """The line and the dotted name of each import of a file, those inside functions too."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{shown(path)}:{node.lineno}: imports are absolute"
            module = node.module or ""
            if module.partition(".")[0] == "graphserve":  # a name of it may be a module
                yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, module


def trespasses(path: Path) -> Iterator[str]:
    """Imports of a room that is not below the file's own."""
    own = room(path)
    for line, name in imports(path):
        top, _, rest = name.partition(".")
        if top != "graphserve" or not rest:  # `import graphserve` alone only asks where it is
            continue
        other = room_of(rest)
        if other != own and TIER.get(other, len(ORDER)) >= TIER[own]:
            yield f"{shown(path)}:{line}: {own} imports {other}"


def strangers(path: Path) -> Iterator[str]:
    """Imports of a library outside of its room, or of one that has none."""
    for line, name in imports(path):
        top = name.partition(".")[0]
        if (
            top != "graphserve"
            and top not in sys.stdlib_module_names
            and room(path) not in HOMES.get(top, set())
        ):
            yield f"{shown(path)}:{line}: {top} in {room(path)}"


def test_every_module_has_a_room() -> None:
    assert {room(path) for path in modules()} <= set(TIER)


def test_imports_go_one_way() -> None:
    assert not [trespass for path in modules() for trespass in trespasses(path)]


@pytest.mark.parametrize("folder", APART)
def test_the_rest_of_a_room_does_without(folder: str) -> None:
    inside = f"graphserve.{folder}."
    rest = f"graphserve.{folder.rpartition('.')[0]}."
    assert inside.removesuffix(".") in HOUSE.modules
    assert not [
        (module, other)
        for module in HOUSE.modules
        if module.startswith(rest) and not f"{module}.".startswith(inside)
        for other in HOUSE.imports(module)
        if f"{other}.".startswith(inside)
    ]


def test_no_modules_import_each_other() -> None:
    assert not HOUSE.circles()


def test_no_public_class_or_type_alias_has_the_name_of_another() -> None:
    assert not HOUSE.repeated_types()


def test_each_library_stays_in_its_room() -> None:
    assert not [stranger for path in modules() for stranger in strangers(path)]


def test_a_module_says_what_it_owns() -> None:
    assert not [shown(path) for path in modules() if not ast.get_docstring(tree(path))]


# A line of a table whose text begins on the next one; what goes on there is indented further.
NAMES_ALONE = r"[ >-]{1,9}\w+(, \w+)*"


def entries(docstring: str) -> frozenset[str]:
    """The modules that the docstring of a folder tells of: a line of its table begins with their
    names, or they stand in backticks. A word of a sentence is none.
    """
    heads = [
        re.split(r"(?<=\S) {2,}", line)[0]
        for line in docstring.splitlines()
        if re.search(r"\S {2,}\S", line) or re.fullmatch(NAMES_ALONE, line)
    ]
    named = [word for head in heads for word in re.findall(r"\w+", head)]
    quoted = re.findall(r"`(?:\w+/)*(\w+)(?:/|\.py)?`", docstring)
    return frozenset(named) | frozenset(quoted)


@pytest.mark.parametrize(
    "folder",
    [path.parent for path in modules() if path.name == "__init__.py" and path.parent != ROOT],
    ids=shown,
)
def test_a_folder_tells_of_each_of_its_modules(folder: Path) -> None:
    inside = {path.stem for path in folder.glob("*.py")} | {
        path.parent.name for path in folder.glob("*/__init__.py")
    }
    docstring = ast.get_docstring(tree(folder / "__init__.py"))
    assert docstring is not None
    assert inside - {"__init__"} <= entries(docstring)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("    limits    how much", {"limits"}),
        ("      -> early (tls)  what comes", {"early", "tls"}),
        ("    control_connections", {"control_connections"}),
        ("    signals, watch", {"signals", "watch"}),
        ("              limits", set()),
        ("what they share: slots, limits, the time", set()),
        ("the `limits` and `call/pieces.py`, by `Slots.take`", {"limits", "pieces"}),
    ],
)
def test_an_entry_is_no_word_of_a_sentence(line: str, found: set[str]) -> None:
    assert entries(line) == found


def raised(path: Path) -> Iterator[tuple[int, str]]:
    """The line and the name of each class that a docstring of a file has under `Raises:`."""
    for node in ast.walk(tree(path)):
        if isinstance(node, DOCUMENTED) and (text := ast.get_docstring(node)):
            _, _, section = text.partition("\nRaises:\n")
            for line in section.splitlines():
                if line and not line.startswith(" "):  # the next section
                    break
                if found := re.match(r" {4}([\w.]+):", line):
                    yield node.body[0].lineno, found[1]


@cache
def classes() -> frozenset[str]:
    """The names of all classes of the package, and of what Python has."""
    ours = (
        node.name
        for path in modules()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ClassDef)
    )
    return frozenset(ours) | frozenset(dir(builtins))


def test_what_a_docstring_raises_is_a_class() -> None:
    assert not [
        f"{shown(path)}:{line}: {name}"
        for path in modules()
        for line, name in raised(path)
        if "." not in name and name not in classes()
    ]


def test_public_names_are_few_and_all_there() -> None:
    assert len(graphserve.__all__) <= PUBLIC_NAMES
    for name in graphserve.__all__:
        assert getattr(graphserve, name) is not None
        assert name in dir(graphserve)


def loaded_after(statement: str) -> set[str]:
    """The top-level modules in a new interpreter after a statement."""
    code = f"import sys\n{statement}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    return set(run.stdout.split())


@pytest.mark.parametrize(
    ("statement", "never"),
    [
        ("import graphserve", HEAVY),
        ("from graphserve import Batch, Problem, api, depends, service", HEAVY),
        ("import graphserve.export", HEAVY),
        (
            "import graphserve.worker.main",
            ("circus", "click", "networkx", "pydantic", "rich", "tornado", "zmq"),
        ),
        (
            "import graphserve.supervise",
            (
                "click",
                "h11",
                "msgspec",
                "networkx",
                "numpy",
                "pydantic",
                "rich",
                "starlette",
                "uvicorn",
                "yaml",
                "zmq",
            ),
        ),
        (
            "import graphserve.cli",
            ("circus", "networkx", "numpy", "pydantic", "starlette", "uvicorn", "zmq"),
        ),
    ],
)
def test_an_import_costs_only_what_it_needs(statement: str, never: tuple[str, ...]) -> None:
    heavy = loaded_after(statement) & set(never)
    assert not heavy


HELLO = str(ROOT.parent / "examples" / "hello")


@pytest.mark.parametrize(
    ("statement", "never"),
    [
        (  # in the process that the user started
            (
                "from graphserve.cli import main; main(['check', 'app:Gateway', '--port', '0',"
                f" '--app-dir', {HELLO!r}])"
            ),
            ("circus", "msgspec", "networkx", "numpy", "pydantic", "rich", "tornado", "zmq"),
        ),
        (  # in the resolver
            (
                "from graphserve.graph import builder\n"
                f"builder.resolve(builder.Settings('app:Gateway', app_dir={HELLO!r}))"
            ),
            (
                "circus",
                "click",
                "httpx",
                "networkx",
                "pydantic",
                "rich",
                "starlette",
                "tornado",
                "uvicorn",
                "zmq",
            ),
        ),
    ],
)
def test_a_check_costs_only_what_it_needs(statement: str, never: tuple[str, ...]) -> None:
    heavy = loaded_after(statement) & set(never)
    assert not heavy


def test_who_wants_zmq_or_yaml_gets_the_real_ones_after_the_supervisor() -> None:
    assert {"zmq", "yaml"} <= loaded_after(
        "import graphserve.supervise, zmq.utils.jsonapi, yaml; zmq.Context, yaml.load"
    )
