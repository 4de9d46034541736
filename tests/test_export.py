"""Pictures of Plans: dot through Graphviz itself, Mermaid, SVG and the terminal's tree."""

from __future__ import annotations

import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings, strategies as st

from graphserve.declare.options import ServiceOptions
from graphserve.export import dot, mermaid, svg, tree
from graphserve.export.layout import Drawing, arrange, columns_by_longest_path, spread
from graphserve.graph.plan import ApiPlan, EdgePlan, NodePlan, Plan

SVG = "{http://www.w3.org/2000/svg}"
DOT_LINE = re.compile(
    r'digraph "[^"]+" \{'
    r"|  rankdir=LR;"
    r"|  node \[[^\]]+\];"
    r'|  "(?P<node>[^"]+)" \[label="[^"]+"(, (style="rounded,dashed"|penwidth=2))?\];'
    r'|  "(?P<caller>[^"]+)" -> "(?P<callee>[^"]+)"( \[style=dashed\])?;'
    r"|\}"
)
BILLING = 'https://billing.example.com/v1?a=1&b="<2>"\\'


def plan_of(
    calls: Mapping[str, Sequence[str]],
    elsewhere: Mapping[str, str] | None = None,
    **nodes: tuple[int, int, float],
) -> Plan:
    """A Plan of nodes and what they call, leaves first; `elsewhere` maps a caller to an address."""
    order: dict[str, None] = {}

    def visit(name: str) -> None:
        if name in order:
            return
        for below in calls.get(name, ()):
            visit(below)
        order.setdefault(name)

    for name in calls:
        visit(name)
    built = []
    for index, name in enumerate(order):
        workers, limit, gpus = nodes.get(name, (1, 1, 0.0))
        edges = [EdgePlan(f"dep{i}", below) for i, below in enumerate(calls.get(name, ()))]
        if elsewhere and name in elsewhere:
            edges.append(EdgePlan("remote", "Billing", url=elsewhere[name]))
        apis = (ApiPlan("run", "/run", (), "queue" if limit else "pooled"),)
        options = ServiceOptions(gpus=gpus)
        built.append(
            NodePlan(
                name, f"n{index}", f"app:{name}", 0, workers, limit, options, {}, apis, tuple(edges)
            )
        )
    return Plan(list(order)[-1], tuple(built))


DIAMOND = plan_of(
    {
        "Gateway": ["Left", "end", "Store"],
        "Left": ["Store"],
        "end": ["Store", "my-node"],
        "Store": ["Disk"],
    },
    {"end": BILLING},
    Gateway=(1, 16, 0.0),
    Left=(2, 1, 0.5),
    Store=(3, 0, 0.0),
)
DIAMOND_EDGES = {
    ("Gateway", "Left"), ("Gateway", "end"), ("Gateway", "Store"), ("Left", "Store"), ("end", "Store"),
    ("end", "my-node"), ("Store", "Disk"), ("end", BILLING),
}  # fmt: skip
ONE = plan_of({"Gateway": []})


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, list[str]]:
    """Nodes and what they call, without a circle, all below the first."""
    count = draw(st.integers(1, 18))
    names = draw(
        st.lists(st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,12}", fullmatch=True), min_size=count, max_size=count,
                 unique=True)
    )  # fmt: skip
    calls: dict[str, list[str]] = {name: [] for name in names}
    for index in range(1, count):
        callers = draw(st.lists(st.integers(0, index - 1), min_size=1, max_size=3, unique=True))
        for caller in callers:
            calls[names[caller]].append(names[index])
    return calls


def edges_of(calls: Mapping[str, Sequence[str]]) -> set[tuple[str, str]]:
    return {(caller, callee) for caller, below in calls.items() for callee in below}


# --- tree ---


def test_tree_shows_a_shared_node_each_time_and_its_children_once() -> None:
    assert tree(DIAMOND).splitlines() == [
        "Gateway  1 worker, 16 at once",
        "├── Left  2 workers, 1 at once, 0.5 GPU each",
        "│   └── Store  3 workers",
        "│       └── Disk  1 worker, 1 at once",
        "├── end  1 worker, 1 at once",
        "│   ├── Store  3 workers  (see above)",
        "│   ├── my-node  1 worker, 1 at once",
        f"│   └── Billing  {BILLING}",
        "└── Store  3 workers  (see above)",
    ]


def test_tree_of_one_node_is_one_line() -> None:
    assert tree(ONE) == "Gateway  1 worker, 1 at once"


def test_colours_change_nothing_but_colour() -> None:
    colored = tree(DIAMOND, color=True)
    assert "\033[" in colored
    assert re.sub(r"\033\[\d+m", "", colored) == tree(DIAMOND)


# --- dot ---


def dot_edges(text: str) -> tuple[set[str], set[tuple[str, str]]]:
    """The nodes and edges of what `dot` wrote; every line must be one that we know."""
    nodes, edges = set(), set()
    for line in text.splitlines():
        match = DOT_LINE.fullmatch(line)
        assert match, line
        if match["node"]:
            nodes.add(match["node"])
        if match["caller"]:
            edges.add((match["caller"], match["callee"]))
    return nodes, edges


def test_dot_has_one_edge_a_line_from_caller_to_dependency() -> None:
    text = dot(DIAMOND)
    assert '  "Gateway" -> "Left";' in text.splitlines()
    nodes, edges = dot_edges(text)
    assert {node for node in nodes if "://" not in node} == {
        "Gateway",
        "Left",
        "end",
        "Store",
        "my-node",
        "Disk",
    }
    assert {edge for edge in edges if "://" not in edge[1]} == {
        e for e in DIAMOND_EDGES if e[1] != BILLING
    }
    assert len(edges) == len(DIAMOND_EDGES)


@pytest.mark.skipif(
    shutil.which("dot") is None, reason="Graphviz is not installed; the line check above stands in"
)
@pytest.mark.parametrize("plan", [ONE, DIAMOND], ids=["one", "diamond"])
def test_graphviz_draws_it(plan: Plan) -> None:
    run = subprocess.run(
        ["dot", "-Tsvg"], input=dot(plan), capture_output=True, text=True, timeout=60
    )
    assert (run.returncode, run.stderr) == (0, "")
    titles = [title.text for title in ElementTree.fromstring(run.stdout).iter(f"{SVG}title")]
    assert {node.name for node in plan.nodes} <= set(titles)


# --- mermaid ---


def mermaid_graph(text: str) -> tuple[set[str], set[tuple[str, str]]]:
    """The names and edges of a flowchart; ids are generated, labels hold no character that ends
    them.
    """
    names: dict[str, str] = {}
    edges = set()
    first, *lines = text.splitlines()
    assert first == "flowchart LR"
    for line in lines:
        if match := re.fullmatch(r'  (n\d+)\["([^"`<>]+)<br/>[^"`<>]+"\]', line):
            names[match[1]] = match[2]
        elif match := re.fullmatch(r"  (n\d+) (?:-->|-\.->) (n\d+)", line):
            edges.add((names[match[1]], names[match[2]]))
        else:
            assert re.fullmatch(r"  style n\d+ stroke-(width:3px|dasharray:5 4)", line), line
    return set(names.values()), edges


def test_mermaid_ids_are_safe_and_what_is_elsewhere_is_dotted() -> None:
    names, edges = mermaid_graph(mermaid(DIAMOND))
    assert names == {"Gateway", "Left", "end", "Store", "my-node", "Disk", "Billing"}
    assert ("end", "Billing") in edges and "-.->" in mermaid(DIAMOND)
    assert "#quot;#lt;2#gt;#quot;" in mermaid(DIAMOND)


@pytest.mark.parametrize("write", [dot, mermaid, svg, tree])
def test_no_picture_shows_a_password(write: Callable[[Plan], str]) -> None:
    text = write(plan_of({"Gateway": []}, {"Gateway": "https://someone:s3cret@host.example/a@b"}))
    assert "s3cret" not in text and "someone" not in text
    assert "https://host.example/a@b" in text


@given(graphs())
def test_each_text_says_all_of_any_graph(calls: dict[str, list[str]]) -> None:
    plan, edges = plan_of(calls), edges_of(calls)
    assert len(tree(plan).splitlines()) == 1 + len(edges), "a line for each edge"
    assert dot_edges(dot(plan)) == (set(calls), edges)
    assert mermaid_graph(mermaid(plan)) == (set(calls), edges)


# --- svg ---


def svg_graph(
    text: str,
) -> tuple[dict[str, tuple[float, float, float, float]], list[tuple[str, str]]]:
    """The boxes (left, top, right, bottom) by node, and the edges."""
    root = ElementTree.fromstring(text)
    boxes = {}
    for group in root.iter(f"{SVG}g"):
        rect = next(rect for rect in group.iter(f"{SVG}rect") if rect.get("class") == "box")
        x, y, width, height = (float(rect.get(name, "")) for name in ("x", "y", "width", "height"))
        boxes[group.get("data-node", "")] = (x, y, x + width, y + height)
    edges = [
        (path.get("data-from", ""), path.get("data-to", ""))
        for path in root.iter(f"{SVG}path")
        if "edge" in path.get("class", "").split()
    ]
    return boxes, edges


def overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def test_svg_has_every_node_and_edge_and_says_it_in_words() -> None:
    text = svg(DIAMOND)
    boxes, edges = svg_graph(text)
    assert set(boxes) == {"Gateway", "Left", "end", "Store", "my-node", "Disk", BILLING}
    assert set(edges) == DIAMOND_EDGES and len(edges) == len(DIAMOND_EDGES)
    root = ElementTree.fromstring(text)
    assert root.get("role") == "img"
    assert root.findtext(f"{SVG}title") == "Service graph of Gateway"
    assert "Gateway is the entry. Gateway calls Left, end, Store." in (
        root.findtext(f"{SVG}desc") or ""
    )
    assert "prefers-color-scheme: dark" in text
    dashed = [path for path in root.iter(f"{SVG}path") if path.get("class") == "edge external"]
    assert [path.get("data-to") for path in dashed] == [BILLING]


def test_svg_shortens_a_text_that_is_too_long_and_keeps_it_as_tooltip() -> None:
    address = "https://example.com/" + "x" * 100
    text = svg(plan_of({"Gateway": []}, {"Gateway": address}))
    root = ElementTree.fromstring(text)
    assert f"Billing: {address}" in [title.text for title in root.iter(f"{SVG}title")]
    assert any((caption.text or "").endswith("…") for caption in root.iter(f"{SVG}text"))


@pytest.mark.parametrize(
    ("name", "pixels"),  # as DejaVu Sans Bold sets them at 14 px
    [("W" * 44, 678), ("summary-of-many-long-documents", 257), ("ABCDEFGHIJKLMNOPQRSTUVWXYZ", 277)],
)
def test_a_box_is_wider_than_its_name(name: str, pixels: float) -> None:
    left, _, right, _ = svg_graph(svg(plan_of({name: []})))[0][name]
    assert pixels + 16 <= right - left <= 1.25 * pixels + 32


def runs_through_a_box(drawing: Drawing) -> bool:
    for route in drawing.routes:
        for (x, y), (end, _) in zip(route.points[1:-1:2], route.points[2:-1:2], strict=True):
            for box in drawing.boxes:
                if x < box.x + box.width and box.x < end and box.y <= y <= box.y + box.height:
                    return True
    return False


@given(graphs())
@settings(deadline=None)
def test_boxes_of_any_graph_stay_apart_and_inside_callers_stand_left_and_no_edge_runs_through(
    calls: dict[str, list[str]],
) -> None:
    text = svg(plan_of(calls))
    boxes, edges = svg_graph(text)
    assert set(boxes) == set(calls) and set(edges) == edges_of(calls)
    names = list(boxes)
    for index, name in enumerate(names):
        assert not any(overlap(boxes[name], boxes[other]) for other in names[:index])
    root = ElementTree.fromstring(text)
    width, height = float(root.get("width", "")), float(root.get("height", ""))
    assert all(left >= 0 and top >= 0 and right <= width and bottom <= height for left, top, right, bottom in
               boxes.values())  # fmt: skip
    assert all(boxes[caller][2] < boxes[callee][0] for caller, callee in edges)
    drawing = arrange({name: (120.0, 50.0) for name in calls}, sorted(edges_of(calls)))
    assert not runs_through_a_box(drawing)


# --- layout ---


def test_columns_go_by_the_longest_path() -> None:
    edges = [("a", "b"), ("b", "c"), ("a", "c"), ("c", "d"), ("a", "e")]
    assert columns_by_longest_path("abcde", edges) == {"a": 0, "b": 1, "c": 2, "d": 3, "e": 1}


def test_what_can_be_drawn_without_a_crossing_is() -> None:
    edges = [("a", "x"), ("a", "y"), ("x", "q"), ("y", "p")]
    drawing = arrange({name: (100.0, 50.0) for name in "axypq"}, edges)
    top = {box.key: box.y for box in drawing.boxes}
    assert (top["x"] < top["y"]) == (top["q"] < top["p"])


@given(
    st.lists(
        st.tuples(st.floats(-1e3, 1e3), st.floats(0.5, 4), st.floats(0, 50)),
        min_size=1,
        max_size=12,
    )
)
def test_spread_keeps_the_gaps_and_grants_wishes_that_fit(
    cells: list[tuple[float, float, float]],
) -> None:
    wishes, weights, gaps = (list(column) for column in zip(*cells, strict=True))
    placed = spread(wishes, weights, gaps[:-1])
    assert all(b - a >= gap - 1e-6 for a, b, gap in zip(placed, placed[1:], gaps, strict=False))
    assert spread(placed, weights, gaps[:-1]) == pytest.approx(placed)


def test_sixty_nodes_are_drawn_quickly() -> None:
    calls = {f"N{i}": [f"N{j}" for j in (i + 1, i + 2, i + 7) if j < 60] for i in range(60)}
    boxes, edges = svg_graph(svg(plan_of(calls)))
    assert len(boxes) == 60 and set(edges) == edges_of(calls)


def test_what_is_optional_is_said_in_every_picture() -> None:
    plan = plan_of({"A": ["B", "C"]})
    (entry,) = [node for node in plan.nodes if node.name == "A"]
    to_b, to_c = entry.edges
    edges = (replace(to_b, optional=True), to_c, replace(to_c, attribute="more", optional=True))
    nodes = tuple(replace(node, edges=edges) if node is entry else node for node in plan.nodes)
    changed = replace(plan, nodes=nodes)
    b, c = tree(changed).splitlines()[1:]
    assert b.endswith("(optional)") and "optional" not in c, "one of two edges is not optional"
    assert '"A" -> "B" [style=dotted, label="optional"];' in dot(changed)
    assert '"A" -> "C";' in dot(changed)
    assert "-. optional .->" in mermaid(changed)
    assert svg(changed).count('class="edge optional"') == 1
    assert "A calls B (optional), C." in svg(changed)
