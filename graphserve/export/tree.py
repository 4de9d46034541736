"""A Plan as a tree for terminals, the entry at the top."""

from __future__ import annotations

from collections.abc import Iterator

from graphserve.export.picture import Picture, Vertex, picture
from graphserve.graph.plan import Plan
from graphserve.logs.text import printable

SEEN = "(see above)"
OPTIONAL = "(optional)"
_BOLD, _DIM, _CYAN, _RESET = "\033[1m", "\033[2m", "\033[36m", "\033[0m"


def tree(plan: Plan, color: bool = False, ascii: bool = False) -> str:
    """Draw a Plan as a tree: each node with its capacity, what it calls below it.

    A node that several others call stands below each of them; what it calls itself stands below the
    first only, the others say `(see above)`. A node that it starts without says `(optional)`.

    Args:
        plan: what to draw.
        color: whether to use ANSI colours.
        ascii: whether to draw the branches with ASCII alone.

    Returns:
        The lines of the tree, without a line feed at the end.

    Example:
        >>> print(tree(plan))
        Gateway  1 worker, 16 at once
        ├── Detector  2 workers, 1 at once
        └── Recognizer  2 workers, 1 at once
    """
    return "\n".join(_Tree(picture(plan), color, ascii).lines())


class _Tree:
    def __init__(self, shown: Picture, color: bool, ascii: bool) -> None:
        self.vertices = {vertex.key: vertex for vertex in shown.vertices}
        self.entry = shown.entry
        self.color = color
        self.branch = "|-- " if ascii else "├── "
        self.last = "`-- " if ascii else "└── "
        self.trunk = "|   " if ascii else "│   "
        self.optional = shown.optional
        self.below: dict[str, list[str]] = {key: [] for key in self.vertices}
        for caller, callee in shown.edges:
            self.below[caller].append(callee)
        self.seen: set[str] = set()

    def lines(self) -> Iterator[str]:
        yield self.text(self.vertices[self.entry])
        yield from self.children(self.entry, "")

    def children(self, key: str, indent: str) -> Iterator[str]:
        self.seen.add(key)
        for index, child in enumerate(self.below[key]):
            last = index == len(self.below[key]) - 1
            branch = self.paint(_DIM, indent + (self.last if last else self.branch))
            mark = f"  {OPTIONAL}" if (key, child) in self.optional else ""
            yield branch + self.text(self.vertices[child], mark)
            if child not in self.seen:
                yield from self.children(child, indent + ("    " if last else self.trunk))

    def text(self, vertex: Vertex, mark: str = "") -> str:
        name = self.paint(_CYAN if vertex.external else _BOLD, printable(vertex.name))
        mark += f"  {SEEN}" if vertex.key in self.seen else ""
        return f"{name}  {self.paint(_DIM, vertex.caption + mark)}"

    def paint(self, code: str, text: str) -> str:
        return f"{code}{text}{_RESET}" if self.color else text
