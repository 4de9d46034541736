"""What to watch next: tables between a store and two models of scikit-learn."""

from __future__ import annotations

from typing import Annotated

import pandas as pd
from msgspec import Meta
from ranker import Ranker
from ratings import Ratings
from taste import Taste

from graphserve import Problem, api, depends, service

Count = Annotated[int, Meta(ge=1, le=100)]


@service
class Gateway:
    """Recommends films."""

    ratings = depends(Ratings)
    taste = depends(Taste)
    ranker = depends(Ranker)

    @api(method="GET", route="/people/{person}/films")
    async def films(self, person: int, count: Count = 3) -> pd.DataFrame:
        """Recommend films to somebody who has rated some.

        Returns:
            A row a film, the best first: film, genre, score.
        """
        return await self.recommended(await self.ratings.of(person), count)

    @api
    async def recommend(self, given: pd.DataFrame, count: Count = 3) -> pd.DataFrame:
        """Recommend films by ratings that are sent.

        Args:
            given: a row a rating: film, stars.
            count: how many films.

        Returns:
            A row a film, the best first: film, genre, score.

        Raises:
            Problem: 422 for a table of something else.
        """
        return await self.recommended(checked(given), count)

    async def recommended(self, given: pd.DataFrame, count: int) -> pd.DataFrame:
        """Guess, and put in order."""
        ranked = await self.ranker.rank(await self.taste.guess(given))
        return ranked.head(count)


def checked(given: pd.DataFrame) -> pd.DataFrame:
    """The columns film and stars of a table that a client sent."""
    if not {"film", "stars"} <= set(given.columns):
        raise Problem(422, "No Ratings", detail="the table has no columns film and stars")
    films, stars = given["film"], given["stars"]
    if not pd.api.types.is_string_dtype(films):
        raise Problem(422, "No Ratings", detail="films are text")
    if not (pd.api.types.is_numeric_dtype(stars) and stars.between(1, 5).all()):
        raise Problem(422, "No Ratings", detail="stars are numbers from 1 to 5")
    return given[["film", "stars"]]
