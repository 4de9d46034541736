"""Generators of clients take the document of every example, and what they generate works.

`nox -s clients` has them.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documents import ROOT
from tests.harness import served
from tests.hostile.test_schemathesis import TARGETS, folder as folder_of

pytest.importorskip("openapi_python_client", reason="needs openapi-python-client: nox -s clients")
EXAMPLES = ROOT / "examples"
CALL = """
import sys
from client import Client
from client.api.default import hello
from client.models import HelloJsonBody

print(hello.sync(client=Client(base_url=sys.argv[1]), body=HelloJsonBody(names=["Ada"])))
"""
IMPORT_ALL = """
import importlib, pkgutil
import client.api.default as package
for module in pkgutil.iter_modules(package.__path__):
    importlib.import_module(f"client.api.default.{module.name}")
import client.models
"""


def run(*command: str, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def typescript(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("npm") is None:
        pytest.skip("needs npm")
    folder = tmp_path_factory.mktemp("typescript")
    run(
        "npm",
        "install",
        "--silent",
        "--no-audit",
        "--no-fund",
        "openapi-typescript@7",
        "typescript@5",
        cwd=folder,
    )
    return folder


@pytest.fixture(scope="module", params=TARGETS)
def document(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with `openapi.json` of an example."""
    name = request.param
    folder = tmp_path_factory.mktemp(Path(name).name)
    code = (
        "import json, sys\nfrom graphserve.graph.importer import load, parse\nfrom"
        " graphserve.declare.declaration import apis\nfrom graphserve.wire.openapi.document import"
        " document\nfrom graphserve.wire.signature import Signature\ncls = load(parse(sys.argv[1],"
        " '.'))\nlisted = [(each, Signature.of(cls, name), None) for name, each in"
        " apis(cls).items()]\nprint(json.dumps(document(cls.__name__, None, '1', listed)))"
    )
    text = run(sys.executable, "-c", code, TARGETS[name], cwd=folder_of(name))
    (folder / "openapi.json").write_text(json.dumps(json.loads(text)))
    return folder


def generate(folder: Path) -> str:
    command = [
        sys.executable,
        "-m",
        "openapi_python_client",
        "generate",
        "--path",
        "openapi.json",
        "--meta",
        "none",
    ]
    return run(*command, "--output-path", "client", "--overwrite", cwd=folder)


def test_a_python_client_is_generated_whole(document: Path) -> None:
    assert "will not be generated" not in generate(document)
    run(sys.executable, "-c", IMPORT_ALL, cwd=document)


def test_a_generated_python_client_works(tmp_path: Path) -> None:
    with served(TARGETS["hello"], cwd=EXAMPLES / "hello") as graph:
        (tmp_path / "openapi.json").write_text(graph.client().get("/openapi.json").text)
        generate(tmp_path)
        assert "Ada" in run(sys.executable, "-c", CALL, graph.url, cwd=tmp_path)


def test_typescript_types_are_generated_and_sound(document: Path, typescript: Path) -> None:
    shutil.copy(document / "openapi.json", typescript)
    run("npx", "openapi-typescript", "openapi.json", "-o", "types.ts", cwd=typescript)
    run("npx", "tsc", "--noEmit", "--strict", "--skipLibCheck", "types.ts", cwd=typescript)
