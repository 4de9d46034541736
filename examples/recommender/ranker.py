"""The second model: which of these films comes first?"""

from __future__ import annotations

import pandas as pd
from ratings import Ratings
from sklearn.linear_model import Ridge

from graphserve import api, depends, service

FEATURES = ["guess", "usual", "seen"]


@service
class Ranker:
    """Puts films in order, by guess, by what is usual and by how well they are known."""

    ratings = depends(Ratings)

    def __init__(self) -> None:
        ratings = self.ratings.all().result()
        self.films = ratings.groupby("film").agg(
            genre=("genre", "first"), usual=("stars", "mean"), seen=("stars", "size")
        )
        liking = ratings.groupby(["person", "genre"])["stars"].transform("mean")
        known = ratings.assign(guess=liking).merge(self.films.drop(columns="genre"), on="film")
        self.model = Ridge().fit(known[FEATURES], known["stars"])

    @api
    def rank(self, films: pd.DataFrame) -> pd.DataFrame:
        """Put films in order.

        Args:
            films: a row a film: film, guess.

        Returns:
            The same rows with genre and score, the best first.
        """
        known = films.merge(self.films, left_on="film", right_index=True)
        known["score"] = self.model.predict(known[FEATURES]).clip(1, 5).round(1)
        best = known.sort_values(["score", "film"], ascending=[False, True])
        return best[["film", "genre", "score"]].reset_index(drop=True)
