"""Bytes: what crosses a socket, and how the types of an API decide it. Only this room knows msgspec and pydantic."""
