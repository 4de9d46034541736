"""Takes and gives arrays as files, and tables."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from typing import Annotated

import httpx
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa

from graphserve import Array, Batch, Media, api, depends, service


@service
class Worker:
    @api
    def doubled(self, table: pd.DataFrame, column: str = "n") -> pd.DataFrame:
        table.loc[:, column] = table[column] * 2  # what came may be changed
        return table

    @api
    async def sorted(self, table: pl.DataFrame, by: str = "n") -> pl.DataFrame:
        return table.sort(by, descending=True)

    @api
    def arrow(self, table: pa.Table) -> pa.Table:
        return table

    @api(batch=Batch(max_size=4, max_wait=0))
    def counted(self, tables: list[pa.Table]) -> list[int]:
        return [table.num_rows for table in tables]

    @api
    def scaled(self, array: np.ndarray, by: float = 2.0) -> np.ndarray:
        return array * by

    @api
    def exact(self, array: Annotated[np.ndarray, Array("float32", (None, 3))]) -> list[object]:
        return [str(array.dtype), list(array.shape), array.flags.writeable]


@service
class Tables:
    worker = depends(Worker)
    untyped = depends("tests.apps.tables:Worker")
    http = depends(Worker, client=httpx.AsyncClient)

    @api
    async def doubled(self, table: pd.DataFrame, column: str = "n") -> pd.DataFrame:
        return await self.worker.doubled(table, column)

    @api
    async def sorted(self, table: pl.DataFrame, by: str = "n") -> pl.DataFrame:
        return await self.worker.sorted(table, by)

    @api
    async def by_columns(
        self, table: pa.Table
    ) -> Annotated[pa.Table, Media("application/json", layout="columns")]:
        return await self.worker.arrow(table)

    @api
    async def arrow(self, table: pa.Table) -> pa.Table:
        return await self.worker.arrow(table)

    @api
    async def crossed(self, table: pa.Table) -> str:
        """A caller without annotations sends another library's table."""
        found = await self.untyped.sorted(pl.from_arrow(table).to_pandas())
        return type(found).__module__.partition(".")[0]

    @api
    async def counted(self, tables: list[pa.Table]) -> list[int]:
        return await self.worker.counted(tables)

    @api
    async def rows(self, table: pa.Table, at_once: int = 1) -> AsyncIterator[pa.Table]:
        for begin in range(0, table.num_rows, at_once):
            yield table.slice(begin, at_once)

    @api
    async def scaled(self, array: np.ndarray, by: float = 2.0) -> np.ndarray:
        return await self.worker.scaled(array, by)

    @api
    async def exact(
        self, array: Annotated[np.ndarray, Array("float32", (None, 3))]
    ) -> list[object]:
        return await self.worker.exact(array)

    @api
    async def both(self, left: np.ndarray, right: np.ndarray) -> float:
        return float((left * right).sum())

    @api
    async def by_http(self, table: pd.DataFrame) -> list[object]:
        answer = await self.http.post(
            "/doubled", content=table.to_csv(index=False), headers={"content-type": "text/csv", "accept": "text/csv"}
        )  # fmt: skip
        return [answer.status_code, answer.headers["content-type"], answer.text]

    @api
    async def imported(self) -> list[str]:
        return sorted({"pandas", "polars", "pyarrow", "torch"} & set(sys.modules))
