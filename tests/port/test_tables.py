"""Tables come as CSV, Arrow, Parquet or JSON, and leave so; arrays as `.npy`: at the port, over a hop,
in `local()`.
"""

from __future__ import annotations

import datetime
import io
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("pandas")
pytest.importorskip("polars")

import pandas as pd
import polars as pl
import pyarrow as pa

import graphserve
from graphserve.wire.media import tables
from graphserve.wire.media.npy import NPY
from graphserve.wire.media.tables import ARROW, CSV, PARQUET
from tests.apps.tables import Tables
from tests.harness import APPS, Served, served
from tests.wire.test_tables import parquet, repeated, stream

SMALL = pa.table({"n": [1, 2, 3], "s": ["a", "b", None]})
# too many bytes for the socket: its buffers pass by shared memory
LARGE = pa.table({"n": list(range(30_000)), "s": ["text"] * 30_000})


@pytest.fixture(scope="module")
def graph() -> Iterator[Served]:
    with served("tests.apps.tables:Tables", cwd=APPS.parent.parent) as graph:
        yield graph


@pytest.fixture
def client(graph: Served) -> Iterator[httpx.Client]:
    with graph.client() as client:
        yield client


def opened(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    kind = answer.headers["content-type"]
    if kind == CSV:
        return pa.Table.from_pandas(pd.read_csv(io.BytesIO(answer.content)))
    if kind == PARQUET:
        return pa.Table.from_pandas(pd.read_parquet(io.BytesIO(answer.content)))
    if kind == ARROW:
        return pa.ipc.open_stream(answer.content).read_all()
    return pa.Table.from_pylist(answer.json())


def written(table: Any, media_type: str) -> bytes:
    if media_type == CSV:
        return bytes(table.to_pandas().to_csv(index=False).encode())
    return stream(table) if media_type == ARROW else parquet(table)


@pytest.mark.parametrize("table", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("media_type", [CSV, ARROW, PARQUET, "application/json"])
def test_a_table_comes_and_leaves_in_every_way(
    client: httpx.Client, table: Any, media_type: str
) -> None:
    accept = {"accept": media_type}
    rows = table.to_pylist()
    answers = [client.post("/doubled", json={"table": rows}, headers=accept)]
    answers += [client.post("/doubled", json={"table": table.to_pydict()}, headers=accept)]
    if media_type != "application/json":
        data = written(table, media_type)
        answers += [
            client.post("/doubled", content=data, headers={"content-type": media_type, **accept}),
            client.post("/doubled", files={"table": ("a.bin", data)}, headers=accept),
            client.post("/doubled", files={"table": ("a", data, media_type)}, data={"column": "n"}, headers=accept),
        ]  # fmt: skip
    for answer in answers:
        assert answer.headers["content-type"] == media_type
        assert opened(answer)["n"].to_pylist() == [2 * n for n in table["n"].to_pylist()]
    answer = client.post("/sorted", json={"table": rows, "by": "s"}, headers=accept)
    assert sorted(opened(answer)["n"].to_pylist()) == table["n"].to_pylist()
    answer = client.post("/arrow", json={"table": rows}, headers=accept)
    assert opened(answer)["n"].to_pylist() == table["n"].to_pylist()


def test_a_table_leaves_as_columns_where_its_media_says_so(client: httpx.Client) -> None:
    table = {
        "n": [1, None],
        "x": [0.5, float("nan")],
        "at": [datetime.datetime(2000, 1, 2), None],
        "list": [["a"], []],
    }
    columns = {
        "n": [1, None],
        "x": [0.5, None],
        "at": ["2000-01-02T00:00:00", None],
        "list": [["a"], []],
    }
    sent = stream(pa.table(table))
    for accept in ("*/*", "application/json", ""):
        headers = {"content-type": ARROW, "accept": accept}
        answer = client.post("/by_columns", content=sent, headers=headers)
        assert (answer.json(), answer.headers["content-type"]) == (columns, "application/json")
        assert client.post("/by_columns", json={"table": answer.json()}).json() == columns
    answer = client.post("/by_columns", json={"table": []}, headers={"accept": CSV})
    assert (answer.status_code, answer.headers["content-type"]) == (200, CSV)
    assert client.post("/by_columns", json={"table": {"n": []}}).json() == {"n": []}
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["n", "n"])
    with pytest.raises(TypeError, match="two columns of one name"):
        tables.ARROW_TABLES.write(twice, "application/json", {"layout": "columns"})
    document = client.get("/openapi.json").json()["paths"]["/by_columns"]["post"]
    assert "anyOf" in str(document["responses"]["200"]["content"]["application/json"])


def test_tables_in_lists_streams_and_without_annotations(client: httpx.Client) -> None:
    files = [("tables", ("a", stream(LARGE), ARROW)), ("tables", ("b.csv", b"n\n1\n", CSV))]
    assert client.post("/counted", files=files).json() == [30_000, 1]
    answer = client.post("/rows", json={"table": SMALL.to_pylist(), "at_once": 2})
    assert [len(line) > 2 for line in answer.text.splitlines()] == [True, True]
    assert client.post("/crossed", json={"table": SMALL.to_pylist()}).json() == "polars"
    assert client.post("/by_http", content=b"n,s\n4,x\n", headers={"content-type": CSV}).json() == [
        200, CSV, '"n","s"\n8,"x"\n',
    ]  # fmt: skip


def test_what_is_said_to_be_no_table(client: httpx.Client) -> None:
    answer = client.post("/doubled", content=b"x", headers={"content-type": "image/png"})
    assert answer.status_code == 415, answer.text
    assert CSV in answer.json()["detail"]
    answer = client.post("/doubled", files={"table": ("a", b"x", "image/png")})
    assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (422, ["table"])


@pytest.mark.parametrize(
    ("content", "media_type"),
    [
        (b"", CSV), (b"n,n\n1,2\n", CSV), (b"n\n1,2\n", CSV), (b"n\n\xff\n", CSV), (b"x", ARROW), (b"x", PARQUET),
        (parquet(repeated(3_000_000)), PARQUET), (parquet(repeated(3_000_000)), "application/octet-stream"),
        (stream(SMALL, compression="zstd"), ARROW), (stream(SMALL)[:-80], ARROW),
    ],
)  # fmt: skip
def test_what_is_no_table(client: httpx.Client, content: bytes, media_type: str) -> None:
    for answer in (
        client.post("/doubled", content=content, headers={"content-type": media_type}),
        client.post("/doubled", files={"table": ("a", content, media_type)}),
    ):
        assert answer.status_code == 422, answer.text
        assert answer.json()["errors"][0]["loc"] == ["table"]
    for value in (1, [1], {"n": 1}, {"n": [{}]}, [{"a": "x"}, {"a": 1}]):
        answer = client.post("/doubled", json={"table": value})
        assert answer.status_code == 422 and answer.json()["errors"][0]["loc"][0] == "table"


def npy(array: Any, **options: Any) -> bytes:
    written = io.BytesIO()
    np.save(written, array, **options)
    return written.getvalue()


def test_an_array_comes_and_leaves_as_a_file(client: httpx.Client) -> None:
    for array in (
        np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.zeros((0, 3)),
        np.array(3.5), np.arange(3, dtype=">i4"), np.ones((500, 400)), np.array([np.nan, np.inf]),
    ):  # fmt: skip
        data = npy(array)
        for answer in (
            client.post("/scaled", content=data, headers={"content-type": NPY, "accept": NPY}),
            client.post("/scaled", files={"array": data}, data={"by": "2"}, headers={"accept": NPY}),
        ):  # fmt: skip
            assert answer.headers["content-type"] == NPY, answer.text
            found = np.load(io.BytesIO(answer.content), allow_pickle=False)
            np.testing.assert_array_equal(found, array * 2.0)
    answer = client.post(
        "/scaled", content=npy(np.array([np.nan, 1.0])), headers={"content-type": NPY}
    )
    assert answer.json() == [None, 2.0]
    assert client.post("/scaled", json={"array": answer.json()}).json() == [None, 4.0]
    files = {"left": npy(np.ones(3)), "right": ("r", b"[1, 2, 3]", "application/json")}
    assert (
        client.post("/both", files={"left": npy(np.ones(3)), "right": npy(np.arange(3))}).json()
        == 3.0
    )
    del files


def test_a_file_is_of_the_dtype_and_shape_that_are_declared(client: httpx.Client) -> None:
    right = npy(np.zeros((2, 3), "f4"))
    answer = client.post("/exact", content=right, headers={"content-type": NPY})
    assert answer.json() == ["float32", [2, 3], False]
    for content in (
        npy(np.zeros((2, 3))),
        npy(np.zeros(3, "f4")),
        right[:-1],
        b"",
        b"\x93NUMPY",
        npy(np.array([{}])),
    ):
        answer = client.post("/exact", content=content, headers={"content-type": NPY})
        assert answer.status_code == 422 and answer.json()["errors"][0]["loc"] == ["array"]
    answer = client.post("/exact", content=right, headers={"content-type": "text/plain"})
    assert answer.status_code == 415


@pytest.mark.anyio
async def test_tables_in_one_process() -> None:
    async with graphserve.local(Tables) as local:
        frame = await local.doubled(LARGE.to_pandas())
        assert type(frame) is pd.DataFrame and list(frame["n"][:3]) == [0, 2, 4]
        assert (await local.sorted(pl.from_arrow(SMALL)))["n"].to_list() == [3, 2, 1]
        assert (await local.arrow(LARGE)).equals(LARGE)
        assert await local.counted([SMALL, LARGE]) == [3, 30_000]
        assert [each.num_rows async for each in local.rows(SMALL, at_once=2)] == [2, 1]
        assert await local.by_http(SMALL.to_pandas()) == [200, CSV, '"n","s"\n2,"a"\n4,"b"\n6,\n']
        with pytest.raises(graphserve.InvalidArguments):
            await local.arrow("no table")  # type: ignore[arg-type]


def test_the_document_says_what_comes_and_leaves(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    post = paths["/doubled"]["post"]
    kinds = {CSV, ARROW, PARQUET}
    assert set(post["requestBody"]["content"]) == {
        "application/json", "application/msgpack", "multipart/form-data", *kinds,
    }  # fmt: skip
    form = post["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    assert form["table"]["format"] == "binary" and form["column"]["type"] == "string"
    answers = post["responses"]["200"]["content"]
    assert set(answers) == {"application/json", "application/msgpack", *kinds}
    assert "anyOf" in str(answers["application/json"]["schema"])
    scaled = paths["/scaled"]["post"]
    assert NPY in scaled["requestBody"]["content"] and NPY in scaled["responses"]["200"]["content"]
