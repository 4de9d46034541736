"""One caller of a stream, who looks at when each item arrives."""

from __future__ import annotations

import re
import socket
import time

from tests.measuring.requests import Request, percentile

ITEM = re.compile(rb'"made": ?(\d+)')
PATIENCE = 20.0  # seconds without an item


def read(request: Request, count: int) -> list[float]:
    """Seconds between the making of an item and its arrival here, for each item of one stream.

    Raises:
        OSError: the stream ended before its last item, or stood still.
    """
    data, ages = b"", []
    with socket.create_connection(("127.0.0.1", request.port), PATIENCE) as sock:
        sock.sendall(request.encode())
        while len(ages) < count:
            new = sock.recv(1 << 16)
            now = time.monotonic_ns()
            if not new:
                raise ConnectionError(
                    f"the stream ended after {len(ages)} of {count} items: {data[:200]!r}"
                )
            data += new
            end = data.rfind(b"}") + 1  # what follows may be half an item
            ages += [(now - int(made)) / 1e9 for made in ITEM.findall(data[:end])]
            data = data[end:]
    return ages


def measure(request: Request, count: int, times: int) -> dict[str, float]:
    """`first_ms`: the age of the first item on arrival; `p50_ms` and `p99_ms` of all items;
    `errors`.
    """
    first, every, errors = [], [], 0
    for _ in range(times):
        try:
            ages = read(request, count)
        except OSError:
            errors += 1
        else:
            first.append(ages[0])
            every += ages
    figures = {"first_ms": sorted(first), "p50_ms": sorted(every)}
    return {name: percentile(values, 50) * 1e3 for name, values in figures.items()} | {
        "p99_ms": percentile(sorted(every), 99) * 1e3, "errors": errors,
    }  # fmt: skip
