"""Stand-ins for large models: each fits a screen, needs numpy alone, and really does its work.

The examples are about how models are put together: put one of yours in place of any of these.
"""

from __future__ import annotations

import math
import random
import re
import zlib
from collections import defaultdict
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta

PROSE = """
I have an idea and the idea is good. I have a plan and the plan is simple. The plan is to write
a letter to the city and to ask for a garden. The garden is for the children of the city. A
letter is a good idea and a garden is a good plan. The children have a garden and the city has a
letter. To ask is simple.
"""
WORDS = re.findall(r"\w+", PROSE.lower())

COLORS = {
    "black": (0, 0, 0),
    "white": (255, 255, 255),
    "red": (220, 30, 30),
    "green": (30, 160, 60),
    "blue": (40, 80, 210),
    "yellow": (250, 220, 40),
}
GERMAN = {
    "black": "schwarz",
    "white": "weiß",
    "red": "rot",
    "green": "grün",
    "blue": "blau",
    "yellow": "gelb",
}

LOW, HIGH = (
    (697, 770, 852, 941),
    (1209, 1336, 1477),
)  # Hz; one of each sounds for a key of a telephone
KEYS = ("123", "456", "789", "*0#")

Kind = Literal["setosa", "versicolor", "virginica"]
Length = Annotated[float, Meta(ge=0, le=100)]  # cm
# length and width of the sepals, then of the petals
Flower = tuple[Length, Length, Length, Length]

# the mean of each kind in Fisher's data
IRISES: dict[Kind, Flower] = {
    "setosa": (5.006, 3.428, 1.462, 0.246),
    "versicolor": (5.936, 2.770, 4.260, 1.326),
    "virginica": (6.588, 2.974, 5.552, 2.026),
}


class Writer:
    """Continues a text word by word: a Markov chain over `PROSE`.

    Args:
        order: how many words decide the next one.
    """

    def __init__(self, order: int) -> None:
        self.order = order
        self.next: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
        for start in range(len(WORDS) - order):
            self.next[tuple(WORDS[start : start + order])].append(WORDS[start + order])

    def continued(self, text: str, words: int = 8) -> str:
        """The text with up to so many words more; the same text is always continued alike."""
        chance = random.Random(text)
        said = re.findall(r"\w+", text.lower())
        for _ in range(words):
            following = self.next.get(tuple(said[-self.order :]))
            if not following:
                break
            said.append(chance.choice(following))
        return " ".join(said)


def fluency(text: str) -> float:
    """How much of a text is triples of words that `PROSE` has too, 0 to 1."""
    said = triples(re.findall(r"\w+", text.lower()))
    known = set(triples(WORDS))
    return round(sum(triple in known for triple in said) / max(1, len(said)), 2)


def triples(words: list[str]) -> list[tuple[str, str, str]]:
    """Each three words that follow each other."""
    return list(zip(words, words[1:], words[2:], strict=False))


def topics(text: str) -> list[str]:
    """What a text is about: its words of more than four letters."""
    return re.findall(r"\w{5,}", text.lower())


def embedding(text: str, size: int = 256) -> np.ndarray:
    """The topics of a text as one vector: float32, shape (size,), of length 1."""
    vector = np.zeros(size, np.float32)
    for word in topics(text):
        vector[zlib.crc32(word.encode()) % size] += 1
    return vector / max(1.0, float(np.linalg.norm(vector)))


def color(pixels: np.ndarray) -> str:
    """The name of the color that a picture has on average.

    Args:
        pixels: uint8, shape (height, width, 3).
    """
    mean = pixels.reshape(-1, 3).mean(axis=0).tolist()
    return min(COLORS, key=lambda name: math.dist(COLORS[name], mean))


def key_of(samples: np.ndarray, rate: int) -> str:
    """The key of a telephone that sounds, or "" if none does.

    Args:
        samples: float32, shape (n,).
        rate: samples in a second.
    """
    times = np.arange(len(samples)) / rate

    def strength(frequency: int) -> float:
        return float(abs(samples @ np.exp(-2j * np.pi * frequency * times))) / max(1, len(samples))

    low, high = max(LOW, key=strength), max(HIGH, key=strength)
    if min(strength(low), strength(high)) < 0.02:
        return ""
    return KEYS[LOW.index(low)][HIGH.index(high)]


def nearest_iris(flower: Flower) -> Kind:
    """The kind of iris whose mean is nearest."""
    return min(IRISES, key=lambda kind: math.dist(IRISES[kind], flower))


def iris_by_petal(flower: Flower) -> Kind:
    """The kind of iris by the length and the width of its petals alone: a tree of two questions."""
    if flower[2] < 2.5:
        return "setosa"
    return "versicolor" if flower[3] < 1.7 else "virginica"
