"""The house in figures and as a picture: what imports what, layer by layer, and how large the parts
are.

`nox -s house` draws the picture into CONTRIBUTING.md and prints the figures. `nox -s house -- httpx
starlette` prints those of other packages beside them: installed ones, or folders.
`tests/test_house.py` tests the order of the rooms.
"""

from __future__ import annotations

import ast
import importlib.util
import statistics
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import networkx

TOP = Path(__file__).parents[2]
PAGE = TOP / "CONTRIBUTING.md"
BEGIN, END = "<!-- the house: drawn by `nox -s house` -->", "<!-- end of the house -->"

# Imports go from later lines to earlier ones; rooms on one line never import each other. A folder
# is one room, but for the modules named here, which are in a lower layer than their folder.
ORDER: tuple[tuple[str, ...], ...] = (
    ("wire.headers", "loop"),
    ("errors",),
    ("system",),
    ("isolation", "logs"),
    ("declare",),
    ("wire",),
    ("graph",),
    ("metrics",),
    ("config", "call"),
    ("worker", "supervise", "export"),
    ("run",),
    ("cli",),
    ("__init__", "__main__", "child"),  # where a process begins; __init__ is imported by users only
)
SMALL = 60  # lines
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def room_of(name: str) -> str:
    """Return the room of a module, by its name below the package."""
    low = [
        room for tier in ORDER for room in tier if "." in room and f"{name}.".startswith(f"{room}.")
    ]
    return low[0] if low else name.partition(".")[0]


class Package:
    """A package on disk, read by its syntax: nothing of it is imported.

    Args:
        root: the folder of the package.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @cached_property
    def modules(self) -> dict[str, Path]:
        """Every module, by its dotted name."""
        names: dict[str, Path] = {}
        for path in sorted(self.root.rglob("*.py")):
            parts = path.relative_to(self.root.parent).with_suffix("").parts
            names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
        return names

    @cached_property
    def trees(self) -> dict[str, ast.Module]:
        """The syntax of each module."""
        return {
            name: ast.parse(path.read_text(encoding="utf-8")) for name, path in self.modules.items()
        }

    def imports(self, module: str) -> set[str]:
        """Return the modules of the package that a module imports, inside functions and for type
        checkers too.
        """
        found: set[str] = set()
        for node in ast.walk(self.trees[module]):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                base = self._absolute(module, node)
                # A name that is imported may be a module; if it is none, its module is what is
                # imported.
                names = {f"{base}.{alias.name}" for alias in node.names}
                found |= {name if name in self.modules else base for name in names}
        return (found & self.modules.keys()) - {module}

    def _absolute(self, module: str, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        folder = module.split(".")
        if self.modules[module].name != "__init__.py":
            folder.pop()
        folder = folder[: len(folder) - node.level + 1]
        return ".".join([*folder, *([node.module] if node.module else [])])

    def circles(self) -> list[list[str]]:
        """Return the sets of modules that import each other, directly or by others."""
        graph: networkx.DiGraph[str] = networkx.DiGraph()
        graph.add_edges_from((name, other) for name in self.modules for other in self.imports(name))
        return sorted(
            sorted(found)
            for found in networkx.strongly_connected_components(graph)
            if len(found) > 1
        )

    def lines(self, module: str) -> int:
        """Return how many lines a module has, comments and blank ones included."""
        return len(self.modules[module].read_text(encoding="utf-8").splitlines())

    def lines_of_code(self, module: str) -> int:
        """Return how many lines of a module are neither blank, nor only a comment, nor part of a
        docstring.
        """
        lines = self.modules[module].read_text(encoding="utf-8").splitlines()
        prose = {
            number
            for number, line in enumerate(lines, 1)
            if not line.strip() or line.strip().startswith("#")
        }
        for node in ast.walk(self.trees[module]):
            if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
                text = node.body[0]
                prose |= set(range(text.lineno, (text.end_lineno or text.lineno) + 1))
        return len(lines) - len(prose)

    def repeated_classes(self) -> list[str]:
        """Return the names of public classes that more than one module defines."""
        return self._repeated(aliases=False)

    def repeated_types(self) -> list[str]:
        """Return the names of public classes and type aliases that more than one module defines."""
        return self._repeated(aliases=True)

    def _repeated(self, *, aliases: bool) -> list[str]:
        counts = Counter(
            name
            for tree in self.trees.values()
            for name in {_defined(node, aliases) for node in tree.body}
            if name and not name.startswith("_")
        )
        return sorted(name for name, count in counts.items() if count > 1)

    def anys(self, module: str) -> int:
        """Return how often `Any` is part of an annotation."""
        return sum(
            _names_any(part)
            for annotation in _annotations(self.trees[module])
            for part in ast.walk(annotation)
        )

    def tuple_assignments(self, module: str) -> int:
        """Return how many statements assign several attributes at once: `self.a, self.b = a, b`."""
        return sum(
            isinstance(node, ast.Assign)
            and any(
                isinstance(target, ast.Tuple)
                and any(isinstance(each, ast.Attribute) for each in target.elts)
                for target in node.targets
            )
            for node in ast.walk(self.trees[module])
        )

    def figures(self) -> dict[str, str]:
        """Return what `nox -s house` prints of a package."""
        sizes = [self.lines(name) for name in self.modules]
        folders = Counter(path.parent for path in self.modules.values())
        fullest, files = folders.most_common(1)[0]
        code = sum(self.lines_of_code(name) for name in self.modules)
        anys = sum(self.anys(name) for name in self.modules)
        small = [
            name
            for name, path in self.modules.items()
            if path.name != "__init__.py" and self.lines(name) < SMALL
        ]
        return {
            "modules": str(len(sizes)),
            "lines": f"{sum(sizes):,}",
            "lines of code": f"{code:,}",
            "median lines of a module": f"{statistics.median(sizes):.0f}",
            "folders": str(len(folders)),
            "files in the fullest folder": f"{files} ({fullest.relative_to(self.root.parent)})",
            "circles of imports": str(len(self.circles())),
            "public class names that exist twice": str(len(self.repeated_classes())),
            "those of classes and type aliases": str(len(self.repeated_types())),
            f"modules under {SMALL} lines, but for __init__": str(len(small)),
            "Any in annotations, for 1,000 lines of code": f"{1000 * anys / max(code, 1):.1f}",
            "assignments to several attributes at once": str(
                sum(self.tuple_assignments(n) for n in self.modules)
            ),
        }


def _annotations(tree: ast.Module) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign | ast.arg) and node.annotation is not None:
            yield node.annotation
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.returns is not None:
            yield node.returns


def _defined(node: ast.stmt, aliases: bool) -> str:
    """Return the name of the class that a statement defines, or of the type alias; "" for none."""
    if isinstance(node, ast.ClassDef):
        return node.name
    if not aliases:
        return ""
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return node.target.id if "TypeAlias" in ast.unparse(node.annotation) else ""
    if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
        return ""
    # Of constants all letters are large; what is called is a TypeVar, a NamedTuple, …
    name = node.targets[0].id
    is_type = isinstance(node.value, ast.Subscript | ast.BinOp | ast.Name | ast.Attribute)
    return name if is_type and name[0].isupper() and not name.isupper() else ""


def _names_any(node: ast.AST) -> bool:
    return (isinstance(node, ast.Name) and node.id == "Any") or (
        isinstance(node, ast.Attribute) and node.attr == "Any"
    )


def picture(package: Package) -> str:
    """Return the rooms as Mermaid text: a box a room, a line of boxes a layer, an arrow for what is
    imported.

    An arrow is left out where others lead to the same room: `cli` imports `errors`, but so does all
    below it.
    """
    name = package.root.name
    graph: networkx.DiGraph[str] = networkx.DiGraph()
    for module in package.modules:
        own = room_of(module.removeprefix(f"{name}.") if module != name else "__init__")
        graph.add_node(own)
        for other in package.imports(module):
            if other != name:
                graph.add_edge(own, room_of(other.removeprefix(f"{name}.")))
    graph.remove_edges_from([(own, own) for own in graph])
    arrows = networkx.transitive_reduction(graph).edges
    lines = ["```mermaid", "flowchart TD"]
    for number, rooms in reversed([*enumerate(ORDER)]):
        boxes = " ~~~ ".join(f'{_box(room)}["{_label(package, room)}"]' for room in rooms)
        lines += [f'  subgraph layer_{number}[" "]', "    direction LR", f"    {boxes}", "  end"]
    lines += [f"  {_box(own)} --> {_box(other)}" for own, other in sorted(arrows)]
    return "\n".join([*lines, "```"])


def _box(room: str) -> str:
    return "room_" + room.replace(".", "_")  # a bare `graph` or `call` is a word of Mermaid's own


def _label(package: Package, room: str) -> str:
    path = room.replace(".", "/")
    return f"{path}/" if (package.root / path).is_dir() else f"{path}.py"


def drawn_into(text: str, drawing: str) -> str:
    """Return a page with the drawing between its two markers."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN} and {END} to draw between")
    return f"{before}{begin}\n\n{drawing}\n\n{end}{after}"


def table(columns: dict[str, dict[str, str]]) -> str:
    """Return figures side by side, one package a column."""
    keys = list(next(iter(columns.values())))
    rows = [
        ["", *columns],
        *([key, *(figures[key] for figures in columns.values())] for key in keys),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True)),
            ]
        )
        for row in rows
    )


def find(name: str) -> Path:
    """Return the folder of a package: of an installed one by its name, or the folder itself."""
    if Path(name).is_dir():
        return Path(name).resolve()
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"{name} is neither a folder nor an installed package")
    return Path(next(iter(spec.submodule_search_locations)))


def main(others: list[str]) -> None:
    """Draw the house into CONTRIBUTING.md, and print its figures beside those of other packages."""
    house = Package(TOP / "graphserve")
    PAGE.write_text(drawn_into(PAGE.read_text(encoding="utf-8"), picture(house)), encoding="utf-8")
    columns = {"graphserve": house.figures()}
    columns |= {name: Package(find(name)).figures() for name in others}
    print(table(columns))
    for circle in house.circles():
        print("import each other:", ", ".join(circle))
    for name in house.repeated_types():
        print("is the name of two public types:", name)


if __name__ == "__main__":
    main(sys.argv[1:])
