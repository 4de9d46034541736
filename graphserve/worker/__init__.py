"""The child process of a node: its life, its sockets, its calls. One worker runs one instance of one service."""

import graphserve.worker.http._uvicorn  # noqa: F401  (before anything of uvicorn)
