"""Where the ratings are: who gave how many stars to which film."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from graphserve import Problem, api, service

DATA = Path(__file__).parent / "data"


@service
class Ratings:
    """Knows who gave how many stars to which film."""

    def __init__(self) -> None:
        films = pd.read_csv(DATA / "films.csv")
        self.ratings = pd.read_csv(DATA / "ratings.csv").merge(films, on="film")

    @api
    async def all(self) -> pd.DataFrame:
        """All ratings.

        Returns:
            A row a rating: person, film, stars, genre.
        """
        return self.ratings

    @api
    async def of(self, person: int) -> pd.DataFrame:
        """What one person gave.

        Returns:
            A row a rating: film, stars.

        Raises:
            Problem: 404 for a person who is not known.
        """
        found = self.ratings[self.ratings["person"] == person]
        if found.empty:
            raise Problem(404, "Nobody", detail=f"there is no person {person}")
        return found[["film", "stars"]].reset_index(drop=True)
