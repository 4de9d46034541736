"""The child process of a node: its life, its sockets, its calls. One worker runs one instance of one service."""

import graphserve.worker.lean  # noqa: F401  (before anything of uvicorn)
