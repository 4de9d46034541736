"""Makes the recording that the README sends: two voices of espeak-ng (`apt install espeak-ng`)."""

import io
import subprocess
import wave
from pathlib import Path

import numpy as np

RATE = 16000  # samples in a second
SPOKEN = {"en-us": "Good morning to you.", "en-us+f3": "And good morning from me."}


def spoken(voice: str, text: str) -> np.ndarray:
    """A text as a voice says it: float64, shape (n,)."""
    said = subprocess.run(
        ["espeak-ng", "-v", voice, "--stdout", text], check=True, capture_output=True
    )
    with wave.open(io.BytesIO(said.stdout)) as file:
        rate = file.getframerate()
        # the length in the header of what goes to a pipe is only a guess
        samples = np.frombuffer(file.readframes(2**24), "<i2") * 0.6
    times = np.arange(0, len(samples) / rate, 1 / RATE)
    return np.interp(times, np.arange(len(samples)) / rate, samples)


if __name__ == "__main__":
    hiss = np.random.default_rng(1)
    parts = [hiss.normal(0, 30, RATE // 2)]
    for voice, text in SPOKEN.items():
        parts += [spoken(voice, text), hiss.normal(0, 30, RATE * 3 // 5)]
    with wave.open(str(Path(__file__).parent / "samples" / "voices.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(np.concatenate(parts).astype("<i2").tobytes())
