"""Tracebacks begin in user code, in each part of their chain."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable

import pytest

from graphserve.logs import tracebacks

# a frame of ours that calls user code
from graphserve.worker.instance import _without_stop_iteration as ours


def caught(call: Callable[[], object]) -> BaseException:
    try:
        ours(call)
    except BaseException as exc:
        return exc
    raise AssertionError


def plain() -> None:
    raise KeyError("x")


def caused() -> None:
    try:
        ours(plain)
    except KeyError as exc:
        raise ValueError("caused") from exc


def during() -> None:
    try:
        ours(plain)
    except KeyError:
        raise ValueError("during")  # noqa: B904


def hidden() -> None:
    try:
        plain()
    except KeyError:
        raise ValueError("hidden") from None


def group() -> None:
    raise ExceptionGroup("several", [caught(plain), caught(caused)])  # type: ignore[list-item]


def through_us() -> None:
    ours(plain)


def in_python() -> None:
    json.loads("{")


async def nothing() -> None:
    ours(plain)


def on_a_loop() -> None:
    asyncio.run(nothing())


CASES: dict[str, tuple[Callable[[], None], list[str]]] = {
    "plain": (plain, ["plain"]),
    "cause": (caused, ["caused", "plain", "caused"]),
    "context": (during, ["during", "plain", "during"]),
    "suppressed context": (hidden, ["hidden"]),
    "through us": (through_us, ["through_us", "plain"]),
    "in Python": (in_python, ["in_python", "loads", "decode", "raw_decode"]),
    "on a loop": (on_a_loop, ["on_a_loop", "run", "run", "run_until_complete", "nothing", "plain"]),
    "group": (group, ["group", "plain", "caused", "plain", "caused"]),
}


@pytest.mark.parametrize("name", CASES)
def test_each_part_begins_in_user_code_and_has_no_frame_of_ours(name: str) -> None:
    call, names = CASES[name]
    exc = caught(call)
    text = tracebacks.formatted(exc)
    assert "graphserve/worker" not in text
    places = [
        line.rpartition(" in ")[2]
        for line in text.splitlines()
        if line.lstrip(" |+").startswith("File ")
    ]
    assert [place for place in places if place != "caught"] == names
    assert tracebacks.is_of_user(exc)
    assert tracebacks.trim(exc), "there is user code in it"
    assert tracebacks.formatted(exc) == text, "trimmed already"


def within_us(source: str) -> BaseException:
    """What code of ours raises."""
    names: dict[str, Callable[[], None]] = {}
    exec(compile(f"def broken() -> None:\n    {source}\n", tracebacks.__file__, "exec"), names)
    return _raised(names["broken"])


def _raised(call: Callable[[], None]) -> BaseException:
    try:
        call()
    except Exception as exc:
        return exc.with_traceback(exc.__traceback__.tb_next if exc.__traceback__ else None)
    raise AssertionError


def test_what_never_was_in_user_code_says_itself_what_is_wrong() -> None:
    error = within_us("raise TypeError('the result does not fit')")
    assert not tracebacks.is_of_user(error)
    assert tracebacks.formatted(error) == "TypeError: the result does not fit\n"
    assert not tracebacks.trim(error)
    assert error.__traceback__ is None


def test_a_mistake_of_ours_is_shown_whole() -> None:
    error = within_us("{}['x']")
    assert ", in broken\n" in tracebacks.formatted(error)
    assert not tracebacks.trim(error)
    assert ", in broken\n" in tracebacks.formatted(error)


class Strange(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    def __bool__(self) -> bool:
        raise RuntimeError("neither")


class Notes(Exception):
    @property
    def __notes__(self) -> list[str]:
        raise RuntimeError("no notes")


@pytest.mark.parametrize("kind", [Strange, Notes])
def test_whatever_user_code_makes_it_is_told(kind: type[Exception]) -> None:
    def raising() -> None:
        raise kind("x")

    text = tracebacks.formatted(caught(raising))
    assert kind.__name__ in text


def test_a_circle_and_a_long_text_end() -> None:
    first, second = ValueError("first"), ValueError("x" * 10_000_000)
    first.__cause__, second.__cause__ = second, first
    assert len(tracebacks.formatted(first)) < tracebacks.LONGEST + 1000
    tracebacks.trim(first)


def test_recursion_is_short() -> None:
    def again() -> None:
        again()

    limit = sys.getrecursionlimit()
    assert len(tracebacks.formatted(caught(again)).splitlines()) < limit
