"""An ordinary FastAPI application: of the graph it knows only that something scores texts."""

import html
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Protocol

from fastapi import Depends, FastAPI, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import BaseModel

PAGE = """<!doctype html>
<title>Reviews</title>
<form method="post"><input name="text" maxlength="500" required> <button>Send</button></form>
<ul>{}</ul>
"""


class Scorer(Protocol):
    """What the pages need of the service that they are mounted on."""

    async def score(self, text: str) -> float: ...


class Review(BaseModel):
    text: str
    score: float


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, sqlite3.Connection]]:
    """Open the reviews before the worker takes calls, and close them when it stops."""
    reviews = sqlite3.connect(":memory:")
    reviews.execute("CREATE TABLE review (text TEXT, score REAL)")
    yield {"reviews": reviews}
    reviews.close()


pages = FastAPI(title="Reviews", lifespan=lifespan)


def scorer_of(request: Request) -> Scorer:
    """The instance of the service; a test gives another by `pages.dependency_overrides`."""
    scorer: Scorer = request.state.service
    return scorer


def reviews_of(request: Request) -> sqlite3.Connection:
    """What the lifespan opened."""
    opened: sqlite3.Connection = request.state.reviews
    return opened


Reviews = Annotated[sqlite3.Connection, Depends(reviews_of)]


@pages.post("/")
async def write(
    text: Annotated[str, Form(max_length=500)],
    scorer: Annotated[Scorer, Depends(scorer_of)],
    reviews: Reviews,
) -> RedirectResponse:
    """Keep a review, with the score of the model."""
    reviews.execute("INSERT INTO review VALUES (?, ?)", (text, await scorer.score(text)))
    return RedirectResponse(".", status_code=303)


@pages.get("/latest")
async def latest(reviews: Reviews) -> list[Review]:
    """The latest reviews."""
    rows = reviews.execute("SELECT text, score FROM review ORDER BY rowid DESC LIMIT 20")
    return [Review(text=text, score=score) for text, score in rows]


@pages.get("/", response_class=HTMLResponse)
async def show(latest: Annotated[list[Review], Depends(latest)]) -> str:
    """Show them, with a form for one more."""
    items = (f"<li>{html.escape(review.text)} ({review.score:.0%})</li>" for review in latest)
    return PAGE.format("\n".join(items))
