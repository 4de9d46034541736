"""The results in words: the table for the terminal, and the page in the documentation."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from tests.faults.outcome import Fault, Outcome, Setting
from tests.measuring.tables import machine, table

COLUMNS = ("fault", "sent", "failed", "lost", "worst latency", "recovery", "bar", "")
VERSIONS = ("pygraphserve", "uvicorn", "uvloop", "httptools", "msgspec", "circus")
REASONS = 5  # that are shown of each fault

Found = list[tuple[Fault, Outcome]]


def verdict(outcome: Outcome) -> str:
    """Whether the bar was reached."""
    return "**missed**" if outcome.broken or outcome.slow else "reached"


def figures(found: Found) -> str:
    """One line a fault."""
    rows = [
        (
            fault.title, f"{outcome.sent:,}", f"{outcome.failed:,}", f"{outcome.lost:,}",
            f"{outcome.worst * 1e3:,.0f} ms", f"{outcome.recovery:.2f} s", fault.bar, verdict(outcome),
        )
        for fault, outcome in found
    ]  # fmt: skip
    return table([COLUMNS, *rows])


def remarks(found: Found) -> str:
    """What else is to be known of each fault, what was missed first."""
    return "\n".join(
        f"- {fault.title}: {'; '.join([*_missed(outcome), *outcome.remarks])}."
        for fault, outcome in found
    )


def _missed(outcome: Outcome) -> list[str]:
    words = list(dict.fromkeys([*outcome.broken, *outcome.slow]))
    return [f"missed: {each}" for each in words[:REASONS]]


def details(outcome: Outcome) -> str:
    """Everything that the terminal shows of one fault."""
    lines = [f"missed: {each}" for each in [*outcome.broken[:REASONS], *outcome.slow[:REASONS]]]
    lines += [f"failed {count} ×: {words}" for words, count in outcome.reasons.most_common(REASONS)]
    return "\n".join(f"    {line}" for line in [*lines, *outcome.remarks])


def page(found: Found, setting: Setting) -> str:
    """`docs/faults.md`."""
    facts = [f"- {name}: {value}" for name, value in machine().items()]
    facts.append("- " + ", ".join(f"{name} {version(name)}" for name in VERSIONS))
    load = _LOAD.format(rate=setting.rate, seconds=setting.seconds)
    parts = [
        "# Faults", _INTRODUCTION, load, figures(found), _LEGEND, "## Remarks", remarks(found),
        "## Machine and versions", "\n".join(facts), "## Again", _AGAIN,
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def raw(found: Found) -> list[dict[str, Any]]:
    """Everything, for a program."""
    return [
        {"fault": fault.name, **vars(outcome), "reasons": dict(outcome.reasons)}
        for fault, outcome in found
    ]


_INTRODUCTION = """\
What each fault costs, written by `nox -s faults`: it is really injected into a running graph, while requests come in.\
"""
_LOAD = """\
The graph has three levels, with calls by both lanes, to async APIs and to sync ones. Requests come at a steady
{rate:g} a second for {seconds:g} s, whether or not earlier ones are answered, on kept-alive connections and on new
ones; none is sent twice. A stop is measured at full load, and overload at three times what the graph can carry.\
"""
_LEGEND = """\
*sent*: requests that found a connection. *failed*: answers that were not as the bar allows, and lost ones. *lost*:
requests that were sent and never answered. *worst latency*: from the moment at which a request was due to the end of
its answer. *recovery*: the longest time from an injection until all was as before: all workers there, the command done,
the last call ended.\
"""
_AGAIN = """\
`nox -s faults` injects everything. `nox -s faults -- --faults kill-once,cut` injects these, `--seconds` and `--rate`
make the load smaller, `--page FILE` writes this page, `--json FILE` keeps the figures. `nox -s soak` holds a mixed load
with deaths and reloads for ten minutes and watches memory and descriptors. The tests inject every fault in short form.
The programs are in `tests/faults/`.\
"""
