"""Pictures of a Plan: a tree for terminals, Graphviz, Mermaid and SVG. Pure text out of a Plan, in any process."""

from graphserve.export.dot import dot
from graphserve.export.mermaid import mermaid
from graphserve.export.svg import svg
from graphserve.export.tree import tree

__all__ = ["dot", "mermaid", "svg", "tree"]
