"""A Plan as a Mermaid flowchart, for Markdown pages."""

from __future__ import annotations

from graphserve.export.picture import Vertex, picture
from graphserve.graph.plan import Plan

_ENTITIES = {
    "#": "#35;",
    "&": "#amp;",
    '"': "#quot;",
    "<": "#lt;",
    ">": "#gt;",
    "`": "#96;",
    "\n": " ",
}


def mermaid(plan: Plan) -> str:
    """Write a Plan as a Mermaid flowchart;
    edges run from caller to dependency, dotted to what runs elsewhere or is optional.

    Args:
        plan: what to draw.

    Returns:
        The text between the fences of a `mermaid` block.

    Example:
        >>> print(mermaid(plan))
        flowchart LR
          n0["Gateway<br/>1 worker, 16 at once"]
          n1["Recognizer<br/>2 workers, 1 at once"]
          n0 --> n1
          style n0 stroke-width:3px
    """
    shown = picture(plan)
    # Ids of our own: a name such as `end` or one with dashes is no valid id.
    ids = {vertex.key: f"n{index}" for index, vertex in enumerate(shown.vertices)}
    external = {vertex.key for vertex in shown.vertices if vertex.external}
    return "\n".join(
        [
            "flowchart LR",
            *(f"  {ids[vertex.key]}{_label(vertex)}" for vertex in shown.vertices),
            *(
                f"  {ids[a]} {_arrow(b in external, (a, b) in shown.optional)} {ids[b]}"
                for a, b in shown.edges
            ),
            f"  style {ids[shown.entry]} stroke-width:3px",
            *(f"  style {ids[key]} stroke-dasharray:5 4" for key in ids if key in external),
            "",
        ]
    )


def _arrow(external: bool, optional: bool) -> str:
    if optional:
        return "-. optional .->"
    return "-.->" if external else "-->"


def _label(vertex: Vertex) -> str:
    return f'["{_escaped(vertex.name)}<br/>{_escaped(vertex.caption)}"]'


def _escaped(text: str) -> str:
    return "".join(_ENTITIES.get(character, character) for character in text)
