"""The child process of a node: its life, its sockets, its calls. One worker runs one instance of one service."""
