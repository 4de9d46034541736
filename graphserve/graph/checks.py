"""Checks of a class before an instance of it is made: can a worker make one?

Runs in the resolver, and in `local()`.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
from collections.abc import Collection, Iterator, Mapping

from graphserve.declare.dependency import dependencies, depends
from graphserve.errors import closest
from graphserve.wire.init_arguments import BY_DEPENDS

_UNNAMED = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.VAR_POSITIONAL,
    inspect.Parameter.VAR_KEYWORD,
)


def instance_problems(
    cls: object, init: dict[str, object], given: Mapping[str, str], *, undeclared: bool
) -> Iterator[str]:
    """Yield why a worker could not make an instance of a class.

    Args:
        cls: what is made; anything but a class is an instance already.
        init: the keyword arguments of its `__init__`.
        given: where one was given, by name; those that are not there by `depends(init=…)`.
        undeclared: whether it is not a service, and made without them.
    """
    if not isinstance(cls, type):
        return
    if inspect.isabstract(cls):
        missing = ", ".join(sorted(getattr(cls, "__abstractmethods__")))  # noqa: B009  (no stub has it)
        yield (
            f"{cls.__name__} is abstract: it does not define {missing}; depend on a class that does"
        )
    if undeclared:
        return
    fields = (
        {field.name for field in dataclasses.fields(cls)}
        if dataclasses.is_dataclass(cls)
        else set()
    )
    for attribute in dependencies(cls).keys() & fields:
        yield (
            f"{cls.__name__}.{attribute} = depends(…) is a field of the dataclass: drop its"
            " annotation"
        )
    if problem := _init_problem(cls, init, given):
        yield problem
    yield from _late_dependencies(cls)


def _late_dependencies(cls: type) -> Iterator[str]:
    """Yield where a class calls `depends(...)` when it runs: the graph is made by then."""
    for base in cls.__mro__:
        for name, member in vars(base).items():
            function: object = member.fget if isinstance(member, property) else member
            function = inspect.unwrap(function) if callable(function) else function
            if inspect.isfunction(function) and _names_depends(function):
                place = f"{function.__code__.co_filename}:{function.__code__.co_firstlineno}"
                yield (
                    f"{base.__name__}.{name} ({place}) calls depends(…), when the graph is made"
                    " already: write `dep = depends(Service)` in the body of the class"
                )


def _names_depends(function: types.FunctionType) -> bool:
    # (What is deeper than a name of the module, or of graphserve, is not looked for: nobody writes
    # that.)
    names = function.__code__.co_names
    known = [function.__globals__.get(name) for name in names]
    modules = [each for each in known if isinstance(each, types.ModuleType)]
    return any(each is depends for each in known) or (
        "depends" in names
        and any(getattr(module, "depends", None) is depends for module in modules)
    )


def _init_problem(cls: type, init: dict[str, object], given: Mapping[str, str]) -> str:
    own = {name for base in cls.__mro__[:-1] for name in vars(base)} & {"__init__", "__new__"}
    if not own:
        return (
            f"{cls.__name__} has no __init__, but init gives it {', '.join(init)}" if init else ""
        )
    method = "__init__" if "__init__" in own else "__new__"
    signature = inspect.signature(getattr(cls, method))
    named = [
        each.name for each in list(signature.parameters.values())[1:] if each.kind not in _UNNAMED
    ]
    open_ended = any(each.kind is each.VAR_KEYWORD for each in signature.parameters.values())
    for name in () if open_ended else init:
        if name not in named:
            guess = closest(name, named)
            hint = (
                f"did you mean {guess!r}?" if guess else f"it takes {', '.join(named) or 'nothing'}"
            )
            return (
                f"{cls.__name__}.{method}: unknown argument {name!r}; {hint} (given by"
                f" {given.get(name, BY_DEPENDS)})"
            )
    try:
        signature.bind(None, **init)
    except TypeError as exc:
        known = [name for name in signature.parameters][1:]
        return (
            f"{cls.__name__}.{method}: {exc}; it takes {', '.join(known) or 'nothing'} (given by"
            f" {BY_DEPENDS})"
        )
    return ""


def name_of(thing: object) -> str:
    """Return a class by its name, anything else as it shows itself."""
    return thing.__name__ if isinstance(thing, type) else repr(thing)


def unused(replace: Mapping[type, object], known: Collection[type]) -> Iterator[str]:
    """Yield what `local(replace=…)` names though no node is made of it."""
    for cls in replace:
        if cls not in known:
            names = ", ".join(sorted(map(name_of, known)))
            kind = (
                "class of this graph"
                if isinstance(cls, type)
                else "class: write {Class: its override}"
            )
            yield f"replace: {name_of(cls)} is no {kind}; its services are {names}"
