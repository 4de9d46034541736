"""schemathesis against the OpenAPI document of every example: all checks, never a 5xx.

The document allows any status beside those that it names, since an API may raise a `Problem` with
any. For schemathesis that is taken out: graphserve itself answers with no status that is not named,
nor do the examples beyond `RAISED`.

`SCHEMATHESIS_EXAMPLES` says how many requests each operation gets; `nox -s schemathesis` sends many
more.
"""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.documents import ROOT, skip_without_library
from tests.harness import served

pytestmark = pytest.mark.slow

EXAMPLES = ROOT / "examples"
MANY = os.environ.get("SCHEMATHESIS_EXAMPLES", "5")
PORTED = ("contacts", "endpoints", "irises", "pictures")  # each with a kind of API of its own
TARGETS = {
    "hello": "app.py:Gateway",
    "diamond": "app.py:Report",
    "fastapi": "app.py:Gateway",
    "library": "pipeline.py:Pipeline",
    "ocr": "app.py:Gateway",
    "recommender": "app.py:Gateway",
    "speech": "app.py:Gateway",
    "tls": "app.py:Clock",
    **{f"ported/{name}": f"{name}.py:Gateway" for name in PORTED},
}
# what they say to bytes that are no file of their kind
FILES = {
    "ocr": ["422"],
    "ported/pictures": ["422"],
    "recommender": ["404", "422"],
    "speech": ["415"],
}
# by the examples' own code, with no named status
RAISED = {
    "diamond": {"/report": {404: "There is no such fruit."}},
    "recommender": {"/people/{person}/films": {404: "There is no such person."}},
}


def test_every_example_is_here() -> None:
    folders = {name.partition("/")[0] for name in TARGETS}
    assert folders == {path.parent.name for path in EXAMPLES.glob("*/README.md")}


def folder(name: str) -> Path:
    """The folder of an example. The test is skipped where what it needs is not installed."""
    skip_without_library(name)
    return EXAMPLES / name.partition("/")[0]


@pytest.mark.timeout(int(MANY) * 12 + 120)
@pytest.mark.parametrize("name", TARGETS)
def test_an_example_does_what_its_document_says(name: str, tmp_path: Path) -> None:
    more: list[str] = []
    if name == "tls":
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        issued = authority.issue_cert("localhost", "127.0.0.1")
        issued.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
        more = ["--ssl-certfile", str(tmp_path / "server.pem")]
    with served(TARGETS[name], *more, cwd=folder(name)) as graph:
        # No schema can say which bytes are a file of a kind, or which fruit there is.
        fine = ["2xx", *FILES.get(name, ["404"])]
        settings = f"[checks.positive_data_acceptance]\nexpected-statuses = {fine}\n"
        (tmp_path / "schemathesis.toml").write_text(settings)
        trusted = str(tmp_path / "ca.pem") if name == "tls" else "true"
        with graph.client(
            verify=ssl.create_default_context(cafile=trusted) if name == "tls" else True
        ) as client:
            document = strict(client.get("/openapi.json").json(), RAISED.get(name, {}))
        check(graph.url, document, tmp_path, "--tls-verify", trusted)
        assert "Traceback" not in graph.text


# No schema can say which bytes are a picture or an array, nor how many digits a duration may have; in
# a form whatever is sent for a file is the bytes of one, and beside a file null in JSON is not NaN.
SETTINGS = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "404"]
[[operations]]
include-path-regex = "/(turned|matrix|times)"
[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", "422"]
[[operations]]
include-path-regex = "/form"
[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", "422"]
[operations.checks.negative_data_rejection]
expected-statuses = ["2xx", "4xx"]
[[operations]]
include-path-regex = "/(file|echo)"
[operations.checks.negative_data_rejection]
expected-statuses = ["2xx", "4xx"]
"""


@pytest.mark.timeout(int(MANY) * 40 + 300)
def test_a_service_with_an_api_of_each_kind_does_what_its_document_says(tmp_path: Path) -> None:
    (tmp_path / "schemathesis.toml").write_text(SETTINGS)
    with served("everything:Everything") as graph:
        with graph.client() as client:
            raised = {"/items/{number}": {404: "There is no such item."}}
            document = strict(client.get("/openapi.json").json(), raised)
        check(graph.url, with_nan(document), tmp_path)
        assert "Traceback" not in graph.text


# where there is no JSON, and so no null
AS_TEXT = {"parameters", "multipart/form-data", "application/x-www-form-urlencoded"}


def with_nan(schema: Any, path: tuple[str, ...] = ()) -> Any:
    """The document with two things said as schemathesis reads them.

    A number may be NaN, which is null in JSON (docs/reference/types.md). That every number says
    so, in what each client is generated from, helps nobody. And a tuple in an answer is a list of
    any of its items: schemathesis 4.32 cannot read a schema with `prefixItems` there.
    """
    if isinstance(schema, list):
        return [with_nan(each, path) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {
        name: with_nan(each, (*path, name))
        for name, each in schema.items()
        if not (name == "prefixItems" and "responses" in path)
    }
    if found.get("type") == "number" and AS_TEXT.isdisjoint(path):
        found["type"] = ["number", "null"]
    return found


def strict(document: dict[str, Any], raised: dict[str, dict[int, str]]) -> dict[str, Any]:
    """The document, without leave to answer with a status that it does not name."""
    for path, operations in document["paths"].items():
        for operation in operations.values():
            del operation["responses"]["default"]
            for status, text in raised.get(path, {}).items():
                operation["responses"][str(status)] = {"description": text}
    return document


def check(url: str, document: dict[str, Any], folder: Path, *arguments: str) -> None:
    """Run schemathesis; its report is the failure's text."""
    (folder / "openapi.json").write_text(json.dumps(document))
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", "openapi.json", "--url", url, "--checks", "all",
        "--max-examples", MANY, "--seed", "1", "--generation-deterministic", "--no-color", *arguments,
    ]  # fmt: skip
    env = {
        **os.environ,
        "SCHEMATHESIS_HOOKS": "tests.hostile.msgpack_bodies",
        "PYTHONPATH": str(ROOT),
        "NO_PROXY": "*",
    }
    run = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert " passed" in run.stdout and "deserializers" not in run.stdout, run.stdout
