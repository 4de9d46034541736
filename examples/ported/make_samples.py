"""Makes the files that the README sends: a picture and a recording."""

import wave
from pathlib import Path

import models
import numpy as np
from PIL import Image

RATE = 8000  # samples in a second
FOLDER = Path(__file__).parent / "samples"


def recording(keys: str) -> np.ndarray:
    """Keys of a telephone, pressed one after the other: int16, shape (n,)."""
    times = np.arange(RATE // 5) / RATE
    parts = []
    for key in keys:
        row = next(index for index, row in enumerate(models.KEYS) if key in row)
        pair = models.LOW[row], models.HIGH[models.KEYS[row].index(key)]
        tone = sum(np.sin(2 * np.pi * frequency * times) for frequency in pair)
        parts += [np.zeros(RATE // 10), 0.3 * tone]
    return (np.concatenate([*parts, np.zeros(RATE // 10)]) * 32767).astype("<i2")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    Image.new("RGB", (64, 48), (30, 70, 200)).save(FOLDER / "sea.png")
    with wave.open(str(FOLDER / "call.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(recording("0451").tobytes())
