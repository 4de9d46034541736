"""What resolving a graph came to: its Plan, or what is wrong with it. JSON, from the resolver to its parent."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from graphserve.graph.plan import Plan, read
from graphserve.system import own_json


@dataclass(frozen=True)
class Trouble:
    """One thing that is wrong with a graph, as `graphserve check` reports it.

    Args:
        message: what is wrong and what to do about it.
        traceback: the traceback, where user code raised.
        warning: True if the graph runs all the same.
        cycle: the names of the nodes along a circle; the first stands again at the end.
        places: where each of these calls the next.
    """

    message: str
    traceback: str = ""
    warning: bool = False
    cycle: tuple[str, ...] = ()
    places: tuple[str, ...] = ()


@dataclass(frozen=True)
class Resolution:
    """What resolving came to: the Plan, unless there is a trouble that is no warning."""

    plan: Plan | None
    troubles: tuple[Trouble, ...] = ()

    def to_json(self) -> str:
        """This resolution as JSON, the secrets of its Plan included: for a pipe, never for a file."""
        return own_json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Resolution:
        """Read what `to_json` wrote."""
        return read(cls, own_json.loads(text))
