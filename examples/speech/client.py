"""Sends a recording over a WebSocket, and prints what is heard in it."""

import sys
from pathlib import Path

from websockets.sync.client import connect

CHUNK = 3200  # bytes: 0.1 s

if __name__ == "__main__":
    url, recording = sys.argv[1:]
    with connect(url) as socket, Path(recording).open("rb") as file:
        while chunk := file.read(CHUNK):
            socket.send(chunk)
        socket.send(b"")
        for heard in socket:
            print(heard)
