"""What every picture of a Plan shows:
the nodes, the services that run elsewhere, the edges, and their captions.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphserve.declare.addresses import address
from graphserve.graph.plan import EdgePlan, NodePlan, Plan


@dataclass(frozen=True)
class Vertex:
    """One box of a picture.

    Args:
        key: the node's name; for a service that runs elsewhere its address, which is no node's
            name.
        name: the node's name.
        caption: its workers, or the address.
        external: whether it runs elsewhere.
        workers: how many processes; 0 elsewhere.
    """

    key: str
    name: str
    caption: str
    external: bool = False
    workers: int = 0


@dataclass(frozen=True)
class Picture:
    """A Plan as vertices and edges: the entry first, every vertex and every edge once.

    Args:
        entry: the key of the entry.
        vertices: the boxes.
        edges: from caller to callee, by their keys.
        optional: those of them without which the caller starts.
    """

    entry: str
    vertices: tuple[Vertex, ...]
    edges: tuple[tuple[str, str], ...]
    optional: frozenset[tuple[str, str]] = frozenset()


def picture(plan: Plan) -> Picture:
    """Return the vertices and edges of a Plan, in the order in which the classes name them."""
    nodes = {node.name: node for node in plan.nodes}
    elsewhere = {
        target(edge): edge for node in plan.nodes for edge in node.edges if edge.url is not None
    }
    vertices: dict[str, Vertex] = {}
    edges: dict[tuple[str, str], bool] = {}  # whether all that lead there are optional
    waiting = [*nodes, plan.entry]  # the last is next
    while waiting:
        key = waiting.pop()
        if key in vertices:
            continue
        if key in elsewhere:
            vertices[key] = external_vertex(elsewhere[key])
            continue
        vertices[key] = node_vertex(nodes[key])
        for edge in nodes[key].edges:
            ends = key, target(edge)
            edges[ends] = edge.optional and edges.get(ends, True)
        waiting.extend(target(edge) for edge in reversed(nodes[key].edges))
    optional = frozenset(ends for ends, is_optional in edges.items() if is_optional)
    return Picture(plan.entry, tuple(vertices.values()), tuple(edges), optional)


def target(edge: EdgePlan) -> str:
    """Return the key of the vertex that an edge leads to."""
    return edge.node if edge.url is None else address(edge.url)


def node_vertex(node: NodePlan) -> Vertex:
    """Return the vertex of a node."""
    return Vertex(node.name, node.name, caption(node), workers=node.workers)


def external_vertex(edge: EdgePlan) -> Vertex:
    """Return the vertex of a service that runs elsewhere."""
    return Vertex(target(edge), edge.node, target(edge), external=True)


def caption(node: NodePlan) -> str:
    """Return the capacity of a node in words, e.g. `2 workers, 1 at once, 1 GPU each`."""
    words = [f"{node.workers} worker{'' if node.workers == 1 else 's'}"]
    if any(api.lane == "queue" for api in node.apis):
        words.append(f"{node.limit} at once")
    if gpus := node.options.gpus:
        words.append(f"{gpus:g} GPU{'' if gpus <= 1 else 's'}{' each' if node.workers > 1 else ''}")
    return ", ".join(words)
