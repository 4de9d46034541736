"""Instances: what can be seen of a class before it is made. Runs in the resolver, and in `local()`."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from graphserve.service import dependencies


def making_problems(cls: Any, init: dict[str, Any], *, lone: bool) -> Iterator[str]:
    """Why a worker could not make its instance.

    Args:
        cls: what is made; anything but a class is an instance already.
        init: the keyword arguments of its `__init__`.
        lone: whether it is no service, and made without them.
    """
    if not isinstance(cls, type):
        return
    if inspect.isabstract(cls):
        missing = ", ".join(sorted(getattr(cls, "__abstractmethods__")))  # noqa: B009  (no stub has it)
        yield f"{cls.__name__} is abstract: it does not define {missing}; depend on a class that does"
    if lone:
        return
    fields = {field.name for field in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else set()
    for attribute in dependencies(cls).keys() & fields:
        yield f"{cls.__name__}.{attribute} = depends(…) is a field of the dataclass: drop its annotation"
    if problem := _init_problem(cls, init):
        yield problem


def _init_problem(cls: type, init: dict[str, Any]) -> str:
    own = {name for base in cls.__mro__[:-1] for name in vars(base)} & {"__init__", "__new__"}
    if not own:
        return f"{cls.__name__} has no __init__, but init gives it {', '.join(init)}" if init else ""
    method = "__init__" if "__init__" in own else "__new__"
    signature = inspect.signature(getattr(cls, method))
    try:
        signature.bind(None, **init)
    except TypeError as exc:
        known = [name for name in signature.parameters][1:]
        return f"{cls.__name__}.{method}: {exc}; it takes {', '.join(known) or 'nothing'} (given by depends(init=…))"
    return ""


def name_of(thing: Any) -> str:
    """A class by its name, anything else as it shows itself."""
    return thing.__name__ if isinstance(thing, type) else repr(thing)


def unused(replace: Mapping[Any, Any], known: Collection[type]) -> Iterator[str]:
    """What `local(replace=…)` names though no node is made of it."""
    for cls in replace:
        if cls not in known:
            names = ", ".join(sorted(map(name_of, known)))
            kind = "class of this graph" if isinstance(cls, type) else "class: write {Class: what stands in for it}"
            yield f"replace: {name_of(cls)} is no {kind}; its services are {names}"
