"""Pictures of a Plan: pure text out of a Plan, in any process.

    picture               what every picture shows: nodes, services that run elsewhere, edges,
                          captions
    tree, dot, mermaid    a picture for terminals, for Graphviz, for Markdown
    layout, svg           where boxes and edges go, and the drawing of them

`graphserve graph --format …` calls the function of that name with the Plan and writes what it
returns.
"""

from graphserve.export.dot import dot
from graphserve.export.mermaid import mermaid
from graphserve.export.svg import svg
from graphserve.export.tree import tree

__all__ = ["dot", "mermaid", "svg", "tree"]
