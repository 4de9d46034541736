"""The page "Beside FastAPI" says what both answer to the same bytes."""

from __future__ import annotations

import itertools

import pytest

from tests.measuring.beside import PAGE, page, tables

pytest.importorskip("fastapi", reason="needs fastapi")


@pytest.mark.slow
def test_the_page_says_what_both_answer() -> None:
    text = PAGE.read_text(encoding="utf-8")
    found = tables()
    assert page(text, found) == text, "run `nox -s beside`"
    for row in itertools.chain(*found.values()):
        _, _, _, their, why, _ = (cell.strip() for cell in row.split("|"))
        assert their == "the same" or why, f"a difference without a reason: {row}"
