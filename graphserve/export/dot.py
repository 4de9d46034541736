"""A Plan in the language of Graphviz."""

from __future__ import annotations

from graphserve.export.picture import Picture, Vertex, picture
from graphserve.graph.plan import Plan


def dot(plan: Plan) -> str:
    """Write a Plan for Graphviz (`dot -Tsvg`):
    one node a line, then one edge a line, from caller to dependency.

    Node ids are the quoted names of the nodes; a service that runs elsewhere has its address as id
    and is dashed; an edge to an optional one is dotted.

    Args:
        plan: what to draw.

    Returns:
        The text of a `.gv` file.

    Example:
        >>> print(dot(plan).splitlines()[-2])
          "Gateway" -> "Recognizer";
    """
    shown = picture(plan)
    external = {vertex.key for vertex in shown.vertices if vertex.external}
    return "\n".join(
        [
            f"digraph {_quoted(plan.entry)} {{",
            "  rankdir=LR;",
            '  node [shape=box, style=rounded, fontname="sans-serif"];',
            *(
                f"  {_quoted(vertex.key)} [{_attributes(vertex, shown)}];"
                for vertex in shown.vertices
            ),
            *(
                f"  {_quoted(a)} -> {_quoted(b)}{_style(b in external, (a, b) in shown.optional)};"
                for a, b in shown.edges
            ),
            "}",
            "",
        ]
    )


def _attributes(vertex: Vertex, shown: Picture) -> str:
    label = f'label="{_escaped(vertex.name)}\\n{_escaped(vertex.caption)}"'
    if vertex.external:
        return label + ', style="rounded,dashed"'
    return label + (", penwidth=2" if vertex.key == shown.entry else "")


def _style(external: bool, optional: bool) -> str:
    if optional:
        return ' [style=dotted, label="optional"]'
    return " [style=dashed]" if external else ""


def _quoted(text: str) -> str:
    return f'"{_escaped(text)}"'


def _escaped(text: str) -> str:
    # Names have neither; an address with them means the same with them percent-encoded. In an id
    # Graphviz knows no escape for a backslash.
    return text.replace("\\", "%5C").replace('"', "%22").replace("\n", "%0A")
