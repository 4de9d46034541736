"""The parent process: sockets, start, stop and respawn of workers, on circus. Never imports user code."""
