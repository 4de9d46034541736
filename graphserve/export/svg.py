"""A Plan as an SVG picture, drawn without Graphviz; it follows the light or dark scheme of who
looks at it.
"""

from __future__ import annotations

from collections.abc import Iterator
from xml.sax.saxutils import escape, quoteattr

from graphserve.export.layout import Box, Drawing, Route, arrange
from graphserve.export.picture import Picture, Vertex, picture
from graphserve.graph.plan import Plan

# Widths of characters as parts of the font's size, at least those of DejaVu Sans Bold: the widest
# of the usual fonts.
_NARROW, _CAPITAL, _WIDE, _WIDTH = 0.42, 0.86, 1.1, 0.72  # the last: of any other
_WIDTHS = {each: _NARROW for each in "ijlIJ .,:/·-"} | {
    each: _CAPITAL for each in "ABCDEGHKNOPQRSUVXYZ×"
}
_WIDTHS |= {each: _WIDE for each in "wmMW…"}
_NAME_PX, _CAPTION_PX = 14.0, 11.0  # sizes of fonts; a caption has 12, but is not bold
# px: height of a box, room beside its text, its least width
_HEIGHT, _PADDING, _LEAST = 50.0, 16.0, 112.0
_LONGEST = 44  # characters of a text that are shown; the tooltip has all of them
_ARROW = 7.0  # px: length of an arrow head

_STYLE = """
.graphserve { --paper: #ffffff; --box: #f8fafc; --line: #94a3b8; --edge: #64748b;
  --text: #0f172a; --quiet: #526075;
  --accent: #2563eb; --tint: #eff6ff;
  font-family: ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue",
    Arial, sans-serif; }
@media (prefers-color-scheme: dark) {
  .graphserve { --paper: #0d1117; --box: #161c26; --line: #465366; --edge: #8493a8;
    --text: #e6edf3; --quiet: #9aa7b8;
    --accent: #60a5fa; --tint: #132238; }
}
.graphserve .paper { fill: var(--paper); }
.graphserve .box, .graphserve .card { fill: var(--box); stroke: var(--line); stroke-width: 1.25; }
.graphserve .entry .box, .graphserve .entry .card { fill: var(--tint); stroke: var(--accent); }
.graphserve .entry .box { stroke-width: 2; }
.graphserve .external .box { fill: none; stroke-dasharray: 5 4; }
.graphserve .edge { fill: none; stroke: var(--edge); stroke-width: 1.5; }
.graphserve .external.edge { stroke-dasharray: 5 4; }
.graphserve .optional.edge { stroke-dasharray: 1.5 4; stroke-linecap: round; }
.graphserve .head { fill: var(--edge); }
.graphserve .name { fill: var(--text); font-size: 14px; font-weight: 600; }
.graphserve .caption { fill: var(--quiet); font-size: 12px; }
"""


def svg(plan: Plan) -> str:
    """Draw a Plan as SVG: the entry at the left, an arrow from each caller to what it calls.

    Nodes of several workers look like a stack; services that run elsewhere are dashed, and arrows
    to optional ones are dotted.

    Args:
        plan: what to draw.

    Returns:
        A whole SVG document with a title and a description in words.

    Example:
        >>> _ = Path("graph.svg").write_text(svg(plan), encoding="utf-8")
    """
    shown = picture(plan)
    drawing = arrange({vertex.key: _size(vertex) for vertex in shown.vertices}, shown.edges)
    return "\n".join(_document(shown, drawing)) + "\n"


def _document(shown: Picture, drawing: Drawing) -> Iterator[str]:
    width, height = _number(drawing.width), _number(drawing.height)
    vertices = {vertex.key: vertex for vertex in shown.vertices}
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="graphserve" role="img" width="{width}"'
        f' height="{height}" viewBox="0 0 {width} {height}" aria-labelledby="graphserve-title'
        ' graphserve-description">'
    )
    yield f'<title id="graphserve-title">Service graph of {escape(shown.entry)}</title>'
    yield f'<desc id="graphserve-description">{escape(_description(shown))}</desc>'
    yield f"<style>{_STYLE}</style>"
    yield (
        '<defs><marker id="graphserve-head" viewBox="0 0 8 8" refX="0.5" refY="4"'
        f' markerWidth="{_ARROW:g}" markerHeight="{_ARROW:g}" markerUnits="userSpaceOnUse"'
        ' orient="auto"><path class="head" d="M0 0.5 L8 4 L0 7.5 L1.6 4 z"/></marker></defs>'
    )
    yield f'<rect class="paper" width="{width}" height="{height}"/>'
    for route in drawing.routes:
        is_optional = (route.caller, route.callee) in shown.optional
        yield _edge(route, vertices[route.callee].external, is_optional)
    for box in drawing.boxes:
        yield from _node(box, vertices[box.key], box.key == shown.entry)
    yield "</svg>"


def _node(box: Box, vertex: Vertex, entry: bool) -> Iterator[str]:
    kind = "node external" if vertex.external else "node entry" if entry else "node"
    x, y, width, height = (_number(value) for value in (box.x, box.y, box.width, box.height))
    size = f'width="{width}" height="{height}" rx="9"'
    yield f'<g class="{kind}" data-node={quoteattr(vertex.key)}>'
    yield f"<title>{escape(vertex.name)}: {escape(vertex.caption)}</title>"
    if vertex.workers > 1:
        yield f'<rect class="card" x="{_number(box.x + 4)}" y="{_number(box.y + 4)}" {size}/>'
    yield f'<rect class="box" x="{x}" y="{y}" {size}/>'
    left = _number(box.x + _PADDING)
    yield (
        f'<text class="name" x="{left}"'
        f' y="{_number(box.y + 21)}">{escape(_shortened(vertex.name))}</text>'
    )
    yield (
        f'<text class="caption" x="{left}"'
        f' y="{_number(box.y + 38)}">{escape(_shortened(vertex.caption))}</text>'
    )
    yield "</g>"


def _edge(route: Route, external: bool, optional: bool) -> str:
    points = [*route.points[:-1], (route.points[-1][0] - _ARROW, route.points[-1][1])]
    path = f"M{_point(*points[0])}"
    for index in range(0, len(points), 2):
        (x, y), (to_x, to_y) = points[index : index + 2]
        if index:
            path += f" L{_point(x, y)}"  # straight past the boxes of a column
        path += f" C{_point((x + to_x) / 2, y)} {_point((x + to_x) / 2, to_y)} {_point(to_x, to_y)}"
    kind = "edge optional" if optional else "edge external" if external else "edge"
    drawn = (
        f'<path class="{kind}" d="{path}"'
        f' marker-end="url(#graphserve-head)" data-from={quoteattr(route.caller)}'
        f" data-to={quoteattr(route.callee)}"
    )
    return f"{drawn}><title>optional</title></path>" if optional else f"{drawn}/>"


def _size(vertex: Vertex) -> tuple[float, float]:
    text = max(_width(vertex.name) * _NAME_PX, _width(vertex.caption) * _CAPTION_PX)
    return max(_LEAST, text + 2 * _PADDING), _HEIGHT


def _width(text: str) -> float:
    return sum(_WIDTHS.get(character, _WIDTH) for character in _shortened(text))


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _description(shown: Picture) -> str:
    names = {vertex.key: vertex.name for vertex in shown.vertices}
    below: dict[str, list[str]] = {}
    for caller, callee in shown.edges:
        said = " (optional)" if (caller, callee) in shown.optional else ""
        below.setdefault(names[caller], []).append(names[callee] + said)
    calls = [f"{caller} calls {', '.join(callees)}." for caller, callees in below.items()]
    return " ".join([f"{names[shown.entry]} is the entry.", *calls])


def _point(x: float, y: float) -> str:
    return f"{_number(x)} {_number(y)}"


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
