"""Makes the ratings: people like some genres more than others, and some films are better."""

from pathlib import Path

import numpy as np
import pandas as pd

DATA = Path(__file__).parent / "data"
FILMS = {
    "comedy": [
        "Two Left Feet",
        "The Wrong Umbrella",
        "Dinner for Nine",
        "A Dog Named Tuesday",
        "Uncle Ferry",
    ],
    "crime": [
        "The Last Tram",
        "Cold Harbour",
        "Seven Keys",
        "Nobody Saw the Clerk",
        "A Quiet Alibi",
    ],
    "space": ["Slow Orbit", "The Red Relay", "Airlock", "A Garden on Ceres", "Signal Lost"],
    "family": [
        "The Kite Map",
        "Otters!",
        "Grandmother's Robot",
        "The Smallest Whale",
        "Winter Bees",
    ],
}
PEOPLE = 60

if __name__ == "__main__":
    chance = np.random.default_rng(7)
    films = pd.DataFrame(
        [(title, genre) for genre, titles in FILMS.items() for title in titles],
        columns=["film", "genre"],
    )
    quality = pd.Series(chance.normal(3.2, 0.4, len(films)), films["film"])
    rows = []
    for person in range(1, PEOPLE + 1):
        liking = dict(zip(FILMS, chance.permutation([1.2, 0.4, -0.4, -1.2]), strict=True))
        for film, genre in films.sample(10, random_state=person).itertuples(index=False):
            stars = quality[film] + liking[genre] + chance.normal(0, 0.4)
            rows.append((person, film, int(np.clip(round(stars), 1, 5))))
    films.to_csv(DATA / "films.csv", index=False)
    pd.DataFrame(rows, columns=["person", "film", "stars"]).to_csv(
        DATA / "ratings.csv", index=False
    )
    mine = [
        ("Slow Orbit", 5),
        ("Airlock", 5),
        ("The Last Tram", 4),
        ("Otters!", 1),
        ("Uncle Ferry", 2),
    ]
    pd.DataFrame(mine, columns=["film", "stars"]).to_csv(DATA / "mine.csv", index=False)
