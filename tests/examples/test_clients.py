"""Generators of clients take the document of every example, and what they generate works.

`nox -s clients` has them.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.documents import DOCS, ROOT, blocks
from tests.harness import Served, served
from tests.hostile.test_schemathesis import TARGETS, folder as folder_of

pytest.importorskip("openapi_python_client", reason="needs openapi-python-client: nox -s clients")
EXAMPLES = ROOT / "examples"
HERE = Path(__file__).parent / "clients"
EVERYTHING = "tests.apps.everything:Everything"
PAGE = DOCS / "how-to" / "generate-clients.md"
IMPORT_ALL = """
import importlib, pkgutil
import client.api.default as package
for module in pkgutil.iter_modules(package.__path__):
    importlib.import_module(f"client.api.default.{module.name}")
import client.models
"""
PACKAGES = (
    "openapi-typescript@7",
    "openapi-fetch@0.17",
    "@hey-api/openapi-ts@0.95",
    "@redocly/cli@2",
    "typescript@5",
    "@types/node@20",
)
# what a service of its own has nothing to say of
SKIPPED = ("security-defined", "info-license", "operation-4xx-response")
COMPILER = {
    "strict": True,
    "target": "es2023",
    "module": "nodenext",
    "lib": ["es2023", "dom", "dom.iterable"],
    "skipLibCheck": True,
    "types": ["node"],
    "outDir": "out",
}


def run(*command: str, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def typescript(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("npm") is None:
        pytest.skip("needs npm")
    folder = tmp_path_factory.mktemp("typescript")
    run("npm", "install", "--silent", "--no-audit", "--no-fund", *PACKAGES, cwd=folder)
    package = json.loads((folder / "package.json").read_text())
    (folder / "package.json").write_text(json.dumps(package | {"type": "module"}))
    return folder


@pytest.fixture(scope="module")
def everything() -> Iterator[Served]:
    with served(EVERYTHING, cwd=ROOT) as graph:
        yield graph


def of_page(name: str) -> str:
    """A file as the documentation has it."""
    (found,) = [
        block.text
        for block in blocks(PAGE.read_text())
        if block.text.partition("\n")[0].endswith(f" {name}")
    ]
    return found


@pytest.fixture(scope="module", params=TARGETS)
def document(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with `openapi.json` of an example."""
    name = request.param
    folder = tmp_path_factory.mktemp(Path(name).name)
    code = (
        "import json, sys\n"
        "from graphserve.graph.importer import load, parse\n"
        "from graphserve.declare.declaration import apis\n"
        "from graphserve.wire.openapi.document import document\n"
        "from graphserve.wire.signature import Signature\n"
        "cls = load(parse(sys.argv[1], '.'))\n"
        "listed = [(each, Signature.of(cls, name), None) for name, each in apis(cls).items()]\n"
        "print(json.dumps(document(cls.__name__, None, '1', listed)))"
    )
    text = run(sys.executable, "-c", code, TARGETS[name], cwd=folder_of(name))
    (folder / "openapi.json").write_text(json.dumps(json.loads(text)))
    return folder


def generate(folder: Path) -> str:
    """Make a Python client of `openapi.json` in a folder, as the documentation says."""
    (folder / "config.yaml").write_text(of_page("config.yaml"))
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--path", "openapi.json"]
    options = ["--config", "config.yaml", "--meta", "none", "--output-path", "client"]
    return run(*command, *options, "--overwrite", cwd=folder)


def test_a_python_client_is_generated_whole(document: Path) -> None:
    assert "will not be generated" not in generate(document)
    run(sys.executable, "-c", IMPORT_ALL, cwd=document)


def test_a_generated_python_client_calls_everything(everything: Served, tmp_path: Path) -> None:
    (tmp_path / "openapi.json").write_text(everything.client().get("/openapi.json").text)
    assert "will not be generated" not in generate(tmp_path)
    shutil.copy(HERE / "use_client.py", tmp_path)
    run(sys.executable, "use_client.py", everything.url, cwd=tmp_path)


def test_typescript_types_are_generated_and_sound(document: Path, typescript: Path) -> None:
    shutil.copy(document / "openapi.json", typescript)
    run("npx", "openapi-typescript", "openapi.json", "-o", "some.ts", cwd=typescript)
    run("npx", "tsc", "--noEmit", "--strict", "--skipLibCheck", "some.ts", cwd=typescript)


def test_generated_typescript_clients_call_everything(everything: Served, typescript: Path) -> None:
    text = everything.client().get("/openapi.json").text
    (typescript / "openapi.json").write_text(text)
    (typescript / "openapi-ts.config.ts").write_text(of_page("openapi-ts.config.ts"))
    options = ("--default-non-nullable=false", "-o", "types.ts")
    run("npx", "openapi-typescript", "openapi.json", *options, cwd=typescript)
    sources = ["use_fetch.ts", "use_hey_api.ts"]
    for name in sources:
        shutil.copy(HERE / name, typescript)
    settings = {"compilerOptions": COMPILER, "files": sources}
    (typescript / "tsconfig.json").write_text(json.dumps(settings))
    run("npx", "openapi-ts", cwd=typescript)  # (it reads there how modules are named)
    run("npx", "tsc", "-p", ".", cwd=typescript)
    for name in sources:
        run("node", f"out/{name.removesuffix('.ts')}.js", everything.url, cwd=typescript)


def test_the_document_passes_redocly(everything: Served, typescript: Path) -> None:
    text = everything.client().get("/openapi.json").text
    (typescript / "openapi.json").write_text(text)
    skipped = [word for rule in SKIPPED for word in ("--skip-rule", rule)]
    run("npx", "redocly", "lint", "openapi.json", *skipped, cwd=typescript)
