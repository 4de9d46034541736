"""What a worker can say of its own sockets."""

import os
import socket


def delaying() -> list[bool]:
    """For each TCP connection of this process: whether small writes wait for an acknowledgement
    (Nagle's algorithm).
    """
    found = []
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        try:
            with socket.socket(fileno=os.dup(descriptor)) as sock:
                if sock.family in (socket.AF_INET, socket.AF_INET6) and sock.getpeername():
                    found.append(not sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        except OSError:
            pass  # no socket, or not connected
    return found
