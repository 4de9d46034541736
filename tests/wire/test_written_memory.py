"""Whoever writes to what arrived by shared memory gets an error or a copy: no dead process, no
change that its sender sees, and the next filling is read as it was sent.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from graphserve.system import pagemap
from graphserve.wire import shared_buffers
from graphserve.wire.codec import Format, ResultCodec
from graphserve.wire.extensions import BufferSource
from graphserve.wire.shared_buffers import MemoryReceiver, MemorySender

pa = pytest.importorskip("pyarrow")
pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")

SIZE = 300, 200


def array(value: int) -> np.ndarray:
    return np.full(30_000, value, "i8")


def picture(value: int) -> Image.Image:
    return Image.new("RGB", SIZE, (value, value, value))


def table(value: int) -> Any:
    return pa.table({"n": array(value)})


def frame(value: int) -> Any:
    return pd.DataFrame({"n": array(value)})


def frame_of_polars(value: int) -> Any:
    return pl.DataFrame({"n": array(value)})


# --- who writes ---


def by_address(a: np.ndarray) -> None:
    """Write as tensors over an array do, and extensions in C."""
    ctypes.memset(a.ctypes.data, 255, a.nbytes)


def by_item(a: Any) -> None:
    a[0] = 7


def by_flag(a: np.ndarray) -> None:
    a.setflags(write=True)
    a[0] = 7


def by_flag_of_a_part(a: np.ndarray) -> None:
    part = a[1:].view("u1").reshape(-1, 8)
    part.flags.writeable = True


def by_sorting(a: np.ndarray) -> None:
    a.sort()


def by_out(a: np.ndarray) -> None:
    np.add(a, 1, out=a)


def by_frombytes(image: Image.Image) -> None:
    image.frombytes(bytes(SIZE[0] * SIZE[1] * 3))


def by_pixel(image: Image.Image) -> None:
    image.putpixel((0, 0), (1, 2, 3))


def by_access(image: Image.Image) -> None:
    access: Any = image.load()
    access[0, 0] = 1, 2, 3


def by_drawing(image: Image.Image) -> None:
    ImageDraw.Draw(image).rectangle((0, 0, 50, 50), fill="red")


def by_pasting(image: Image.Image) -> None:
    image.paste("red", (0, 0, 50, 50))


def by_pasting_below(image: Image.Image) -> None:
    image.im.paste((9, 9, 9), (0, 0, 50, 50))


def by_place(frame: Any) -> None:
    frame.loc[0, "n"] = 7
    frame["n"] += 1


def by_values(frame: Any) -> None:
    frame["n"].to_numpy()[0] = 7


def by_address_of_values(frame: Any) -> None:
    by_address(frame["n"].to_numpy())


def by_place_of_polars(frame: Any) -> None:
    frame[0, "n"] = 7


def by_extending(frame: Any) -> None:
    frame.extend(frame_of_polars(1))


def by_buffer(table: Any) -> None:
    memoryview(table["n"].chunk(0).buffers()[1])[0] = 7


def by_address_of_a_buffer(table: Any) -> None:
    buffer = table["n"].chunk(0).buffers()[1]
    ctypes.memset(buffer.address, 255, buffer.size)


# who writes to which, and the error if there is one
WAYS: list[tuple[Callable[[int], Any], Any, Callable[[Any], None], type[Exception] | None]] = [
    (array, np.ndarray, by_address, None),
    (array, np.ndarray, by_item, ValueError),
    (array, np.ndarray, by_flag, ValueError),
    (array, np.ndarray, by_flag_of_a_part, ValueError),
    (array, np.ndarray, by_sorting, ValueError),
    (array, np.ndarray, by_out, ValueError),
    (picture, Image.Image, by_frombytes, None),
    (picture, Image.Image, by_pixel, None),
    (picture, Image.Image, by_access, ValueError),
    (picture, Image.Image, by_drawing, None),
    (picture, Image.Image, by_pasting, None),
    (picture, Image.Image, by_pasting_below, None),
    (frame, pd.DataFrame, by_place, None),
    (frame, pd.DataFrame, by_values, ValueError),
    (frame, pd.DataFrame, by_address_of_values, None),
    (frame_of_polars, pl.DataFrame, by_place_of_polars, None),
    (frame_of_polars, pl.DataFrame, by_extending, None),
    (table, pa.Table, by_buffer, TypeError),
    (table, pa.Table, by_address_of_a_buffer, None),
]


class Wire:
    """Both sides of a hop in one process."""

    def __init__(self) -> None:
        self.sender = MemorySender(64 * 1024 * 1024)
        self.receiver = MemoryReceiver({os.getpid()})
        self.segments: set[int] = set()

    def sent(self, value: Any, kind: Any) -> Any:
        """Return what arrives of a value."""
        result = ResultCodec(kind, "S.f")
        return result.decode(result.encode(value, Format.TYPED, self._place), self._fetch)

    def written(self) -> list[bytes]:
        """All that the sender holds."""
        return [segment.map[:] for segment in self.sender._segments]

    def _place(self, source: memoryview | BufferSource) -> bytes:
        reference = self.sender.place(source)
        assert reference is not None
        return reference

    def _fetch(self, reference: bytes) -> memoryview:
        self.segments.add(shared_buffers.REFERENCE.unpack(reference)[2])
        return self.receiver.fetch(reference)


@pytest.fixture
def wire() -> Iterator[Wire]:
    wire = Wire()
    yield wire
    wire.sender.close()


def same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    if isinstance(a, Image.Image):
        return a.tobytes() == b.tobytes()
    return bool(a.equals(b))


@pytest.mark.parametrize("looks", [True, False], ids=["by the table", "without it"])
@pytest.mark.parametrize(
    ("make", "kind", "write", "error"), WAYS, ids=[write.__name__ for _, _, write, _ in WAYS]
)
def test_who_writes_has_a_copy_or_an_error(
    wire: Wire,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[int], Any],
    kind: Any,
    write: Callable[[Any], None],
    error: type[Exception] | None,
    looks: bool,
) -> None:
    if not looks:  # as where there is no /proc, or it does not say
        monkeypatch.setattr(pagemap.PageMap, "may_be_written", lambda *_: True)
    arrived = wire.sent(make(1), kind)
    before = wire.written()
    if error is None:
        write(arrived)
        assert not same(arrived, make(1)), "it has not written at all"
    else:
        with pytest.raises(error):
            write(arrived)
        assert same(arrived, make(1))
    assert wire.written() == before
    del arrived
    for value in (2, 3):
        assert same(wire.sent(make(value), kind), make(value))
    assert len(wire.segments) == 1, "the same memory carried all of them"


def test_a_copy_lives_as_long_as_its_view(wire: Wire) -> None:
    written = wire.sent(array(1), np.ndarray)
    by_address(written)
    for value in range(2, 6):
        assert (wire.sent(array(value), np.ndarray) == value).all()
    assert (written == -1).all()


@pytest.mark.parametrize("size", [30_000, 300_000], ids=["small", "large"])
def test_what_nobody_wrote_to_stays_mapped(
    wire: Wire, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Of a large array the table is read only if there was a page fault meanwhile."""
    answers: list[bool] = []
    ask = pagemap.PageMap.may_be_written

    def asked(self: pagemap.PageMap, address: int, size: int, faults: int | None) -> bool:
        answers.append(ask(self, address, size, faults))
        return answers[-1]

    monkeypatch.setattr(pagemap.PageMap, "may_be_written", asked)
    for write in (None, by_address, None, by_address):
        arrived = wire.sent(np.full(size, 1), np.ndarray)
        assert arrived.sum() == size
        if write is not None:
            write(arrived)
        del arrived
    assert answers == [False, True, False, True]


def test_a_forked_child_lets_its_parent_keep_what_it_reads(wire: Wire) -> None:
    arrived = wire.sent(array(1), np.ndarray)
    child = os.fork()
    if not child:  # the lock is of the open file, which both have
        del arrived
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    for value in range(2, 6):
        wire.sent(array(value), np.ndarray)
    assert (arrived == 1).all()


@contextlib.contextmanager
def shared_pages() -> Iterator[tuple[int, int]]:
    """Where a private mapping of four pages lies, each of them read, and its size."""
    size = 4 * mmap.PAGESIZE
    descriptor = os.memfd_create("pages")
    os.posix_fallocate(descriptor, 0, size)
    with mmap.mmap(descriptor, size, access=mmap.ACCESS_COPY) as mapped:
        assert not any(mapped[:])
        yield ctypes.addressof(ctypes.c_char.from_buffer(mapped)), size
    os.close(descriptor)


def test_where_the_kernel_does_not_say() -> None:
    pages = pagemap.PageMap()
    with shared_pages() as (address, size):
        assert not pages.may_be_written(address, size, None)
        assert not pages.may_be_written(address, size, 0), "no count of faults says nothing"
        ctypes.memset(address + size - 1, 1, 1)
        assert pages.may_be_written(address, size, 0)
        pages._descriptor = os.open("/dev/null", os.O_RDONLY)  # as short as no table is
        assert pages.may_be_written(address, size, None)
        os.close(pages._descriptor)
        assert pages.may_be_written(address, size, None)
