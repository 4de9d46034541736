"""What `graphserve serve` and `graphserve check` say of what cannot run: one clear message, the right
exit code, nothing started.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness import rarely

Run = Callable[..., "subprocess.CompletedProcess[str]"]

FILES = {
    "bad.py": "def f(:\n",
    "missing.py": "import no_such_module\n",
    "leaves.py": "raise SystemExit(3)\n",
    "dies.py": "import os\nos._exit(9)\n",
    "empty.py": "from graphserve import service\n\n\n@service\nclass Empty:\n    pass\n",
    "sub/deep.py": (
        "from graphserve import api, service\n\n\n"
        "@service\n"
        "class Deep:\n"
        "    @api\n"
        "    async def x(self) -> int:\n"
        "        return 1\n"
    ),
    "relative.py": "from . import plain\n",
    "plain.py": "class Plain:\n    pass\n",
    "circle.py": (
        "from graphserve import api, depends, service\n\n\n"
        "@service\n"
        "class A:\n"
        "    b = depends('circle:B')\n\n"
        "    @api\n"
        "    async def x(self) -> int:\n"
        "        return 1\n\n\n"
        "@service\n"
        "class B:\n"
        "    a = depends(A)\n\n"
        "    @api\n"
        "    async def x(self) -> int:\n"
        "        return 1\n"
    ),
}
SYNTAX = "SyntaxError: invalid syntax"
MISSING = "ModuleNotFoundError: No module named 'no_such_module'"
RELATIVE = "ImportError: attempted relative import with no known parent package"
RUN_DIR = "give --run-dir a folder of its own"
ADVICE = "Remove one of these depends(...), or move what both need into a third service."
CIRCLE = "A → B ({cwd}/circle.py:6) → A ({cwd}/circle.py:15)"
# arguments, exit code, the first line, the last line if it is another
CASES = [
    (["nomod:X"], 4, "there is no module 'nomod' (looked in {cwd} first; --app-dir changes that)", None),
    (["Gateway"], 4, "there is no module 'Gateway' (looked in {cwd} first; --app-dir changes that); "
     "did you mean app.py:Gateway?", None),
    (["Nowhere"], 4, "there is no module 'Nowhere' (looked in {cwd} first; --app-dir changes that); "
     "a class is named with its file: FILE.py:Nowhere", None),
    (["app"], 4, "'app' names no class: its services are Recognizer, Gateway; write app:Gateway", None),
    (["app:Gatewya"], 4, "'app' has no class 'Gatewya': did you mean app:Gateway?", None),
    (["app.py:Gatewya"], 4, "'app' has no class 'Gatewya': did you mean app.py:Gateway?", None),
    (["{cwd}/sub/deep.py"], 4, "'deep' names no class: its services are Deep; write sub/deep.py:Deep", None),
    (["/{cwd}/sub/deep.py:Xyz"], 4, "'deep' has no class 'Xyz': its services are Deep; write sub/deep.py:Deep", None),
    (["sub/deep.py:Depe"], 4, "'deep' has no class 'Depe': did you mean sub/deep.py:Deep?", None),
    (["plain:Plain"], 4, "plain:Plain is not a service: decorate it with @service", None),
    (["app:X", "--app-dir", "nix"], 4,
     "there is no module 'app' (the folder {cwd}/nix does not exist; --app-dir names another one)", None),
    (["app.py:Gateway", "--app-dir", "nix"], 4,
     "the folder {cwd}/nix does not exist; --app-dir names another one", None),
    (["none.py:X"], 4, "there is no file '{cwd}/none.py'", None),
    (["empty:Empty"], 4, "{cwd}/empty.py:4: service Empty has no API: decorate at least one method with @api", None),
    (["bad:X"], 4, "importing 'bad' raised SyntaxError: invalid syntax (bad.py, line 1)", SYNTAX),
    (["missing:X"], 4, f"importing 'missing' raised {MISSING}", MISSING),
    (["relative.py:X"], 4, f"importing 'relative' raised {RELATIVE}; the module is in no package: "
     "write `import x` for `from . import x`, or put an __init__.py beside its file", RELATIVE),
    (["leaves:X"], 4, "importing 'leaves' raised SystemExit: 3", "SystemExit: 3"),
    (["dies:X"], 4, "the process that imports 'dies:X' ended with exit code 9 before it was done", None),
    (["circle:A"], 4, f"services depend on each other in a circle: {CIRCLE}. {ADVICE}", None),
    (["app:Gateway", "--scale", "Recog=2"], 4, "--scale: there is no node 'Recog'; did you mean 'Recognizer'?", None),
    (["app:Gateway", "--host", "192.0.2.1"], 3, "192.0.2.1 is no address of this machine; choose another --host", None),
    (["app:Gateway", "--uds", "no/x.sock"], 3, "--uds {cwd}/no/x.sock: there is no folder {cwd}/no", None),
    (["app:Gateway", "--uds", "sub/link.sock"], 3,
     "--uds {cwd}/sub/link.sock: there is a link, and links are not followed: remove it, or give its end", None),
    (["app:Gateway", "--run-dir", "."], 3, f"{{cwd}} is not empty and no run folder of graphserve: {RUN_DIR}", None),
]  # fmt: skip


# What both commands say in the same words is tried with `serve` once a kind; `check` says nothing of
# the machine, and a traceback before its message.
BOTH = [case for case in CASES if case[1] == 4 and case[3] is None]
KINDS = ("nomod:X", "dies:X", "circle:A", "none.py:X", "app:Gateway")
SERVED = [case if case not in BOTH or case[0][0] in KINDS else rarely(*case) for case in CASES]


@pytest.fixture
def files(project: Path) -> Path:
    """The project, with files in it that are no services."""
    (project / "sub").mkdir()
    (project / "sub" / "link.sock").symlink_to("nowhere")
    for name, text in FILES.items():
        (project / name).write_text(text)
    return project


def says(
    done: subprocess.CompletedProcess[str], code: int, first: str, last: str | None, project: Path
) -> None:
    """Assert what a command has said of a project, and with which code it has ended."""
    assert done.returncode == code, done.stderr
    lines = done.stderr.splitlines()
    assert lines[0] == "Error: " + first.format(cwd=project)
    assert lines[-1] == (last or lines[0])
    assert "graphserve/" not in done.stderr.replace(str(project), ""), "our own frames are noise"
    assert done.stdout == ""


@pytest.mark.parametrize(("arguments", "code", "first", "last"), SERVED, ids=lambda value: None)
def test_serve_says_why_it_cannot(
    arguments: list[str], code: int, first: str, last: str | None, files: Path, run: Run
) -> None:
    says(run("serve", *_in(files, arguments)), code, first, last, files)


@pytest.mark.parametrize(("arguments", "code", "first", "last"), BOTH, ids=lambda value: None)
def test_check_says_the_same(
    arguments: list[str], code: int, first: str, last: str | None, files: Path, here: Run
) -> None:
    says(here("check", *_in(files, arguments)), code, first, last, files)


def _in(folder: Path, arguments: list[str]) -> list[str]:
    return [argument.format(cwd=folder) for argument in arguments]


@pytest.mark.parametrize(
    ("arguments", "environ", "where"),
    [
        ([], {}, "pyproject.toml: scale"),
        (["-c", "conf/serve.toml"], {}, "{cwd}/conf/serve.toml: set"),
        (["--env-file", "app.env"], {}, "{cwd}/app.env: GRAPHSERVE_SCALE"),
        (["--env-file", "app.env"], {"GRAPHSERVE_SCALE": "Recog=3"}, "GRAPHSERVE_SCALE"),
        (["--scale", "Recog=2"], {"GRAPHSERVE_SCALE": "Recog=3"}, "--scale"),
    ],
)
def test_a_node_that_is_missing_names_the_place_it_was_given_at(
    arguments: list[str], environ: dict[str, str], where: str, project: Path, here: Run
) -> None:
    (project / "pyproject.toml").write_text("[tool.graphserve.scale]\nRecog = 2\n")
    (project / "app.env").write_text("GRAPHSERVE_SCALE=Recog=2\n")
    (project / "conf").mkdir()
    (project / "conf" / "serve.toml").write_text("[set.Recog]\ntimeout = 2\n")
    done = here("check", "app:Gateway", "--port", "0", *arguments, **environ)
    words = (
        f"Error: {where.format(cwd=project)}: there is no node 'Recog'; did you mean"
        " 'Recognizer'?\n"
    )
    assert (done.returncode, done.stderr) == (4, words)


@pytest.mark.parametrize(
    ("file", "target", "what"),
    [
        ("asyncio.py", "asyncio.py:Gateway", "a module of Python"),
        ("queue.py", "queue:Gateway", "a module of Python"),
        ("numpy.py", "numpy.py:Gateway", "a package that graphserve uses"),
        ("uvloop.py", "app:Gateway", "a package that graphserve uses"),
        ("starlette/__init__.py", "app:Gateway", "a package that graphserve uses"),
    ],
)
def test_a_file_with_the_name_of_another_module(
    file: str, target: str, what: str, project: Path, here: Run
) -> None:
    (project / file).parent.mkdir(exist_ok=True)
    (project / file).write_text((project / "app.py").read_text())
    done = here("check", target, "--port", "0")
    name = file.partition("/")[0].removesuffix(".py")
    words = f"Error: {project}/{file} cannot be imported: {name!r} is {what}. Rename your file\n"
    assert (done.returncode, done.stderr) == (4, words)


@pytest.mark.parametrize("imports", ["", "import queue\n\n"])
def test_a_circle_beside_a_module_that_is_named_as_one_of_python(
    imports: str, project: Path, here: Run
) -> None:
    (project / "queue.py").write_text("")
    (project / "circle.py").write_text(imports + FILES["circle.py"])
    done = here("check", "circle:A", "--port", "0")
    down = imports.count("\n")
    circle = (
        CIRCLE.format(cwd=project).replace(":6)", f":{6 + down})").replace(":15)", f":{15 + down})")
    )
    assert (done.returncode, done.stderr) == (
        4,
        f"Error: services depend on each other in a circle: {circle}. {ADVICE}\n",
    )


def test_a_graph_that_cannot_be_imported_is_one_json_object(project: Path, run: Run) -> None:
    (project / "bad.py").write_text(FILES["bad.py"])
    done = run("serve", "bad:X", "--log-format", "json")
    (record,) = map(json.loads, done.stderr.splitlines())
    assert (
        record["message"] == "importing 'bad' raised SyntaxError: invalid syntax (bad.py, line 1)"
    )
    assert record["traceback"].endswith("SyntaxError: invalid syntax")
