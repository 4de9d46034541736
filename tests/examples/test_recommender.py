"""The recommender, in one process, with tables that are no ratings."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.documents import ROOT

for library in ("pandas", "pyarrow", "sklearn"):
    pytest.importorskip(library, reason=f"needs {library}: pip install pandas pyarrow scikit-learn")
RECOMMENDER = ROOT / "examples" / "recommender"
ONE_PROCESS = """
import asyncio, pandas as pd
from app import Gateway
from graphserve import Problem, local

REFUSED = [
    {},
    {"film": ["Airlock"]},
    {"film": [5], "stars": [5]},
    {"film": [["Airlock"]], "stars": [5]},
    {"film": ["Airlock"], "stars": ["5"]},
    {"film": ["Airlock"], "stars": [None]},
    {"film": ["Airlock", "Airlock"], "stars": [1e308, 1e308]},
    {"film": ["Airlock"], "stars": [0]},
]

async def main():
    async with local(Gateway) as gateway:
        space = pd.DataFrame({"film": ["Airlock", "Signal Lost", "Otters!"], "stars": [5, 5.0, 1], "seen": True})
        best = await gateway.recommend(space, 2)
        assert list(best.columns) == ["film", "genre", "score"] and len(best) == 2
        assert best["score"].is_monotonic_decreasing and "space" in set(best["genre"])
        assert not set(best["film"]) & set(space["film"])
        assert len(await gateway.recommend(space, 100)) == 17
        assert len(await gateway.recommend(pd.DataFrame({"film": ["unheard of"], "stars": [5]}), 100)) == 20
        for columns in REFUSED:
            try:
                await gateway.recommend(pd.DataFrame(columns))
            except Problem as problem:
                assert problem.status == 422, problem
            else:
                raise AssertionError(columns)

asyncio.run(main())
"""


@pytest.mark.slow
def test_it_recommends_and_refuses_what_are_no_ratings() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ONE_PROCESS], cwd=RECOMMENDER, capture_output=True, text=True, timeout=120
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
