"""The first model: what would somebody give to films that they have not seen?"""

from __future__ import annotations

import pandas as pd
from ratings import Ratings
from sklearn.decomposition import TruncatedSVD

from graphserve import api, depends, service

TASTES = 4  # directions in which people differ


@service
class Taste:
    """Finds what people have in common in their ratings (a matrix of low rank)."""

    ratings = depends(Ratings)

    def __init__(self) -> None:
        ratings = self.ratings.all().result()
        self.usual = ratings.groupby("film")["stars"].mean()
        stars = ratings.pivot_table(index="person", columns="film", values="stars")
        self.model = TruncatedSVD(TASTES, algorithm="arpack", random_state=0)
        self.model.fit((stars - self.usual).fillna(0.0))

    @api
    def guess(self, given: pd.DataFrame) -> pd.DataFrame:
        """Guess what somebody would give.

        Args:
            given: a row a rating: film, stars. Films that nobody knows are left out.

        Returns:
            A row for each film that is not among them: film, guess.
        """
        stars = given.groupby("film")["stars"].mean().reindex(self.usual.index)
        differs = (stars - self.usual).fillna(0.0)
        taste = self.model.transform(differs.to_frame().T)
        guess = self.usual + self.model.inverse_transform(taste)[0]
        unseen = guess[stars.isna()]
        return unseen.rename("guess").rename_axis("film").reset_index()
