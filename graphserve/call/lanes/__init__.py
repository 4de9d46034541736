"""The ways to a node: its shared socket, a connection to each worker, or a URL."""
