"""The HTTP of a worker: sockets, parsing, limits, answers."""
