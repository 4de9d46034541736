"""A result that is a file on disk (`pathlib.Path`), opened to be sent.

Runs in workers.
"""

from __future__ import annotations

import io
import os
import stat
from dataclasses import dataclass
from pathlib import Path

_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # (or a pipe would be waited for)
_ANY = b"application/octet-stream"


@dataclass(frozen=True, slots=True)
class OpenedFile:
    """Describes an open file that is an answer.

    Args:
        file: open; it is closed with this.
        path: where it was opened.
        size: bytes.
        modified_ns: when it was changed last, in nanoseconds since 1970.
        content_type: of the answer.
    """

    file: io.FileIO
    path: str
    size: int
    modified_ns: int
    content_type: bytes


def open_result(path: Path | str, content_type: bytes | None, where: str) -> OpenedFile:
    """Open a file that an API has returned.

    Args:
        path: what it returned.
        content_type: what it is sent as; None: by its suffix.
        where: `Class.method`, for messages.

    Raises:
        TypeError: it is no file that can be read.
    """
    name = os.path.abspath(path)
    try:
        file = io.FileIO(os.open(name, _FLAGS), "rb")
    except OSError as exc:
        raise TypeError(
            f"the result of {where}: the file {name} cannot be read: {exc.strerror}"
        ) from None
    found = os.fstat(file.fileno())
    if not stat.S_ISREG(found.st_mode):
        file.close()
        raise TypeError(f"the result of {where}: {name} is no file")
    if content_type is None:
        import mimetypes

        kind, coding = mimetypes.guess_type(name)
        content_type = kind.encode() if kind is not None and coding is None else _ANY
        if content_type.startswith(b"text/"):
            content_type += b"; charset=utf-8"
    return OpenedFile(file, name, found.st_size, found.st_mtime_ns, content_type)
