"""Finds each `depends(...)` that nothing connects: one that is no attribute of a service.

In a default, an annotation, a list or at the top of a module it would be no edge of the graph,
though somebody meant one. `@service` and `@api` refuse those that they can see; when a graph is
resolved, `strays` finds the rest.
"""

from __future__ import annotations

import gc
import inspect
import types
from collections.abc import Collection, Iterator
from typing import get_args

from graphserve.declare.declaration import declaration
from graphserve.declare.dependency import Dependency, made

_CONTAINERS = (list, tuple, set, frozenset, dict)


def strays(
    files: Collection[str], *, everywhere: bool, spared: Collection[object] = ()
) -> Iterator[str]:
    """Yield what is wrong with each `depends(...)` that is no edge of any graph, though somebody
    wrote it.

    Args:
        files: the source files of the services of this graph.
        everywhere: whether it may stand in any file; else only those in these files are looked at.
            This process may be a test run, with much in it that is none of this graph's.
        spared: classes that are not looked at.
    """
    if not any(_is_stray(each, files, everywhere, spared) for each in list(made)):
        return
    gc.collect()  # of classes that are no more
    found = [each for each in list(made) if _is_stray(each, files, everywhere, spared)]
    for each in sorted(found, key=lambda each: (each.place, each.attribute)):
        file, line = each.place
        if each.owner is None:
            yield (
                f"{file}:{line}: {each.written} is no attribute of a class, so nothing connects it:"
                f" write `dep = {each.written}` in the body of the @service class that calls it,"
                f" and `{each.called}` in its methods"
            )
        else:
            name = each.owner.__name__
            yield (
                f"{file}:{line}: {name}.{each.attribute} = {each.written}: {name} is not a service,"
                f" so nothing connects it: decorate {name} with @service, or move the line to the"
                " service that calls"
            )


def _is_stray(
    each: Dependency, files: Collection[str], everywhere: bool, spared: Collection[object]
) -> bool:
    if each.owner is None:
        return everywhere or each.place[0] in files
    # A class for others to inherit from may stand in a library that this graph does not use.
    return (
        each.place[0] in files
        and not any(each.owner is one for one in spared)
        and not _serves(each.owner)
    )


def _serves(cls: type) -> bool:
    """Return whether a class is a service, or one inherits from it."""
    return declaration(cls) is not None or any(map(_serves, type.__subclasses__(cls)))


def misplaced(cls: type) -> Iterator[tuple[str, Dependency | None]]:
    """Yield where a class has `depends(...)` but as an attribute: the place in words, and what was
    found there if that is known.
    """
    for name, member in vars(cls).items():
        function = (
            getattr(member, "__func__", None)
            if isinstance(member, (staticmethod, classmethod))
            else member
        )
        if name == "__init__" and hasattr(cls, "__dataclass_fields__"):
            continue  # made of the fields; graph/checks.py says what is wrong with one of them
        if isinstance(function, types.FunctionType):
            yield from misplaced_in_function(function)
        elif not isinstance(member, Dependency) and name != "__annotations__":
            yield from ((f"{cls.__name__}.{name}", each) for each in _inside(member))
    for name, hint in inspect.get_annotations(cls).items():
        yield from ((f"the annotation of {cls.__name__}.{name}", each) for each in _of_hint(hint))


def misplaced_in_function(function: types.FunctionType) -> Iterator[tuple[str, Dependency | None]]:
    """Yield the same of a function: its defaults and annotations."""
    where = function.__qualname__
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    defaults = function.__defaults__ or ()
    given = dict(zip(names[len(names) - len(defaults) :], defaults, strict=True)) | (
        function.__kwdefaults__ or {}
    )
    for name, value in given.items():
        yield from (
            (f"the default of parameter {name!r} of {where}", each) for each in _inside(value)
        )
    for name, hint in inspect.get_annotations(function).items():
        yield from ((f"the annotation of {name!r} of {where}", each) for each in _of_hint(hint))


def _inside(value: object, depth: int = 3) -> Iterator[Dependency]:
    """Yield what is in a value, and in the lists and the like that it holds."""
    if isinstance(value, Dependency):
        yield value
    # (only the built-in ones themselves: to iterate over one of a user's may do anything)
    elif depth and isinstance(value, _CONTAINERS) and type(value) in _CONTAINERS:
        for each in value.values() if isinstance(value, dict) else value:
            yield from _inside(each, depth - 1)


def _of_hint(hint: object) -> Iterator[Dependency | None]:
    """Yield what is in an annotation; None for one that is text."""
    if isinstance(hint, str):
        if "depends(" in hint:
            yield None
        return
    yield from _inside([hint, *get_args(hint)])
