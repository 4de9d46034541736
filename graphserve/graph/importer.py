"""Import strings: from what a user typed to the class it names.

Runs in the resolver and in workers.

User modules are imported as Python imports a program's: with no event loop running in the thread,
so that `asyncio.run(...)` and the like work at their top, and with the arguments of the program in
`sys.argv`.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import re
import runpy
import sys
import types
from collections.abc import Iterator
from pathlib import Path

from graphserve.declare.declaration import declaration
from graphserve.errors import ConfigurationError, closest
from graphserve.isolation import forked
from graphserve.logs.exception_text import described
from graphserve.system.frozen import dataclass

MAIN = "__main__"
# Packages that we import, some after a module of the user's.
OURS = (
    "anyio",
    "circus",
    "click",
    "httptools",
    "httpx",
    "msgspec",
    "networkx",
    "numpy",
    "pydantic",
    "rich",
    "starlette",
    "tornado",
    "uvicorn",
    "uvloop",
    "zmq",
)
importing = False  # while a target is imported: starting a graph then would never end


@dataclass(frozen=True)
class Target:
    """What a TARGET names: a module, an attribute of it, the folder to look in first, and the file
    if it named one.
    """

    module: str
    name: str
    folder: str | None = None
    file: str = ""

    def __str__(self) -> str:
        return f"{self.module}:{self.name}"


def parse(text: str, folder: str) -> Target:
    """Read `module:Class` or `path/to/file.py:Class`.

    Args:
        text: what the user typed.
        folder: the folder that relative paths start from and that modules are looked up in.

    Raises:
        ConfigurationError: it is neither, or the file does not exist.
    """
    module, colon, name = text.rpartition(":")
    if not colon:
        module, name = text, ""
    if module.endswith(".py") or "/" in module:
        return _parse_file(module, name, folder)
    if not module or not all(part.isidentifier() for part in module.split(".")):
        raise ConfigurationError(
            f"{text!r} is no target: write module:Class, or path/to/file.py:Class"
        )
    return Target(module, name, folder)


def module_of(cls: type) -> str:
    """Return the name of the module that a class is of; the script that is being run is one,
    however it was started.
    """
    return MAIN if cls.__module__ == "__mp_main__" else cls.__module__


def load(target: Target, main: str | None = None) -> type:
    """Import the service class that `target` names.

    Args:
        target: what to import; its folder is put first on `sys.path`.
        main: the script that was run, for a class of the module `__main__`.

    Raises:
        ConfigurationError: the module or the class is missing, or the class is not a service.
        Exception: whatever the module raised while it was imported.
    """
    global importing
    if target.folder and (taken := _taken(target.folder, target.module.partition(".")[0])):
        raise ConfigurationError(taken)
    if target.folder and target.folder not in sys.path:
        sys.path.insert(0, target.folder)
    before, importing = importing, True
    born = forked.forks
    try:
        with _no_loop():
            module = _script(target, main) or _import(target)
    except BaseException as exc:
        if forked.forks != born:
            forked.leave(f"the module {target.module!r}", exc)
        raise
    finally:
        importing = before
    if forked.forks != born:
        forked.leave(f"the module {target.module!r}", None)
    if not target.name:
        raise ConfigurationError(f"{target.module!r} names no class: {_candidates(target, module)}")
    found: object = getattr(module, target.name, None)
    if found is None and (shadowed := _shadowed(target, module)):
        raise ConfigurationError(shadowed)
    if found is None:
        raise ConfigurationError(
            f"{target.module!r} has no class {target.name!r}: {_candidates(target, module)}"
        )
    if not isinstance(found, type) or declaration(found) is None:
        raise ConfigurationError(f"{target} is not a service: decorate it with @service")
    return found


def arguments(target: Target) -> list[str]:
    """Return what `sys.argv` is for the modules of a graph:
    that of a program whose file is the target's.

    Imports nothing.
    """
    return [target.file or _origin(target) or target.module]


def _origin(target: Target) -> str | None:
    """Return the file of a module that is not imported, nor its packages, yet."""
    parts = target.module.split(".")
    for place in (target.folder, *sys.path):
        path = Path(place or ".", *parts)
        for file in (path / "__init__.py", path.with_suffix(".py")):
            if os.path.isfile(file):
                return str(file)
    return None


@contextlib.contextmanager
def _no_loop() -> Iterator[None]:
    """Import as if no event loop ran in this thread:
    where `local()` is called in a coroutine, one does.

    The four functions are those that asyncio documents for event loops and tasks of others
    ("Extending").
    """
    if "asyncio" not in sys.modules:  # as in the resolver: there the import would take 20 ms
        yield
        return
    import asyncio

    loop = asyncio._get_running_loop()
    if loop is None:
        yield
        return
    task = asyncio.current_task(loop)
    if task is not None:
        asyncio._leave_task(loop, task)
    asyncio._set_running_loop(None)
    try:
        yield
    finally:
        asyncio._set_running_loop(loop)
        if task is not None:
            asyncio._enter_task(loop, task)


def _parse_file(path: str, name: str, folder: str) -> Target:
    if not os.path.isdir(folder):  # other modules would not be found there
        raise ConfigurationError(_looked(folder))
    file = Path(folder, path).resolve()
    if not os.path.isfile(file):
        hidden = next(
            (
                above
                for above in file.parents
                if os.path.isdir(above) and not os.access(above, os.X_OK)
            ),
            None,
        )
        reason = f": this user may not look into {str(hidden)!r}" if hidden else ""
        meant = (
            f"; did you mean {path}.py:{name or 'Class'}?" if os.path.isfile(f"{file}.py") else ""
        )
        raise ConfigurationError(f"there is no file {str(file)!r}{reason}{meant}")
    parts, root = [file.stem], file.parent
    if not file.stem.isidentifier():
        raise ConfigurationError(
            f"{path!r} cannot be imported: rename the file so that its name is an identifier"
        )
    while (root / "__init__.py").is_file():
        parts.insert(0, root.name)
        root = root.parent
    # The configuration made it absolute; what is shown, a user shall recognise and be able to type.
    return Target(".".join(parts), name, str(root), _near(file))


def _near(file: Path) -> str:
    try:
        here = os.path.realpath(os.getcwd())
    except OSError:  # a module has changed to a folder that is gone
        return str(file)
    return os.path.relpath(file, here) if file.is_relative_to(here) else str(file)


def _import(target: Target) -> types.ModuleType:
    try:
        return importlib.import_module(target.module)
    except ModuleNotFoundError as exc:
        # Only a missing target is the user's typing; a module that is missing inside it has a
        # traceback.
        if exc.name and (target.module == exc.name or target.module.startswith(exc.name + ".")):
            raise ConfigurationError(f"there is no module {exc.name!r} {_where(target)}") from None
        raise


def explained(exc: BaseException) -> str:
    """Return what an import raised, in words, and what to do where that is known."""
    words = described(exc)
    if isinstance(exc, ImportError) and str(exc).startswith(
        "attempted relative import with no known parent"
    ):
        fix = "write `import x` for `from . import x`, or put an __init__.py beside its file"
        return f"{words}; the module is in no package: {fix}"
    return words


def _where(target: Target) -> str:
    """Return where a module was looked for, and what was probably meant."""
    first, _, rest = target.module.partition(".")
    source = os.path.join(target.folder or os.getcwd(), "src", first)
    # (both say no of what may not be looked at)
    if os.path.isfile(f"{source}.py") or os.path.isdir(source):
        return f"in {target.folder or os.getcwd()}, but there is one in src: add --app-dir src"
    module, _, name = target.module.rpartition(".")
    meant = f"; did you mean {module}:{name}?" if rest and not target.name else ""
    if not rest and not target.name:
        if file := _file_of(first, target.folder):
            meant = f"; did you mean {file}:{first}?"
        elif first[0].isupper():
            meant = f"; a class is named with its file: FILE.py:{first}"
    return f"({_looked(target.folder)}){meant}"


def _file_of(name: str, folder: str | None) -> str:
    """Return the file of a folder that defines a class of this name; empty if none does."""
    line = re.compile(rf"^class {name}\b".encode(), re.MULTILINE)
    with contextlib.suppress(OSError):
        for path in sorted(Path(folder or ".").glob("*.py")):
            if line.search(path.read_bytes()):
                return path.name
    return ""


def _looked(folder: str | None) -> str:
    folder = folder or os.getcwd()
    if not os.path.isdir(folder):
        return f"the folder {folder} does not exist; --app-dir names another one"
    if not os.access(folder, os.R_OK | os.X_OK):
        return f"this user may not read {folder}; --app-dir names another folder"
    return f"looked in {folder} first; --app-dir changes that"


def _script(target: Target, main: str | None) -> types.ModuleType | None:
    """Return the script that runs, if the target is in it.

    Imported as a module too, its classes would be there twice.
    """
    if target.module == MAIN:
        return _import_main(main)
    here = sys.modules.get(MAIN)
    script = main or getattr(here, "__file__", None)
    if not script or Path(script).stem != target.module.rpartition(".")[2]:
        return None
    try:
        spec = importlib.util.find_spec(target.module)
    except (ImportError, ValueError):
        return None
    if (
        spec is None
        or not spec.origin
        or not os.path.exists(spec.origin)
        or not os.path.samefile(spec.origin, script)
    ):
        return None
    return _import_main(main) if main else here


def _import_main(main: str | None) -> types.ModuleType:
    # As multiprocessing does for spawned children: the script runs again under another name, so
    # that what stands under `if __name__ == "__main__":` does not.
    if main is None:
        raise ConfigurationError("a class of __main__ needs the script that defines it")
    # (`__mp_main__` may be there already: importing multiprocessing makes it an alias of our own
    # main module.)
    module = sys.modules.get("__mp_main__")
    if module is None or getattr(module, "__graphserve_script__", None) != main:
        module = types.ModuleType("__mp_main__")
        module.__dict__.update(
            runpy.run_path(main, run_name="__mp_main__"), __graphserve_script__=main
        )
        sys.modules["__main__"] = sys.modules["__mp_main__"] = module
    return module


def _taken(folder: str, module: str) -> str:
    """Return why a file of this folder would be imported where another module of its name is meant,
    or the other way round; empty if none would.

    Workers have most of the standard library before they import user code, and import the rest
    after it.
    """
    names = [module] if module in sys.stdlib_module_names else []
    for name in (*names, *OURS):
        for path in (Path(folder, f"{name}.py"), Path(folder, name, "__init__.py")):
            if not os.path.isfile(path):
                continue
            spec = importlib.util.find_spec(name)
            origin = spec.origin if spec is not None else None
            if origin and os.path.exists(origin) and os.path.samefile(origin, path):
                continue  # the folder is where that module is installed
            what = "a package that graphserve uses" if name in OURS else "a module of Python"
            return f"{path} cannot be imported: {name!r} is {what}. Rename your file"
    return ""


def _shadowed(target: Target, module: types.ModuleType) -> str:
    """Return why it is not the user's file that was imported; empty if it is."""
    wanted = Path(target.folder or ".", *target.module.split("."))
    file = getattr(module, "__file__", None)
    for path in (wanted.with_suffix(".py"), wanted / "__init__.py"):
        if target.folder and path.is_file() and not (file and os.path.samefile(file, path)):
            return (
                f"{path} cannot be imported: {target.module!r} is {file or 'built into Python'}."
                " Rename your file"
            )
    return ""


def _candidates(target: Target, module: types.ModuleType) -> str:
    where = target.file or target.module
    names = [name for name, value in vars(module).items() if declaration(value) is not None]
    if not names:
        return "it defines no service (decorate a class with @service)"
    if guess := closest(target.name, names):
        return f"did you mean {where}:{guess}?"
    return f"its services are {', '.join(names)}; write {where}:{names[-1]}"
