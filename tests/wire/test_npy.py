"""Arrays are read from and written to files of numpy's format; what is in a header is not run, and
is believed only where the length of the file says the same.
"""

from __future__ import annotations

import io
import struct
from typing import Annotated, Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from graphserve.errors import InvalidArguments
from graphserve.wire.arrays import Array
from graphserve.wire.codec import ArgumentsCodec, Format, ResultCodec
from graphserve.wire.exceptions import Misfit
from graphserve.wire.formats import MediaFormat, is_multipart
from graphserve.wire.media.answers import accepts_of
from graphserve.wire.media.bodies import BodyReader
from graphserve.wire.media.npy import NPY, read_file, write_file
from graphserve.wire.media.received import ReceivedFile
from graphserve.wire.signature import Signature

RECORDS = np.array([(1, 2.5, "ab")], dtype=[("a", "<i4"), ("b", "<f8", ()), ("c", "<U2")])


def npy(array: Any, version: tuple[int, int] | None = None) -> bytes:
    written = io.BytesIO()
    np.lib.format.write_array(written, np.asanyarray(array), version=version)
    return written.getvalue()


def read(data: bytes, media_type: str = NPY) -> Any:
    return read_file(ReceivedFile(data, media_type))


def made(header: str, data: bytes = b"", version: int = 1, length: int | None = None) -> bytes:
    said = header.encode("latin-1")
    size = struct.pack("<H" if version == 1 else "<I", len(said) if length is None else length)
    return b"\x93NUMPY" + bytes([version, 0]) + size + said + data


def header(descr: object = "<f8", fortran: object = False, shape: object = (1,)) -> str:
    return repr({"descr": descr, "fortran_order": fortran, "shape": shape})


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(24).reshape(2, 3, 4)), np.array(5), np.zeros((0, 3)),
        np.zeros((3, 0)), np.array([True, False]), np.array(["a", "ñ"]), np.array([b"xy"]), np.arange(3, dtype=">u2"),
        np.array([1 + 2j]), np.array(["2026-11-30"], "M8[D]"), np.array([np.nan, -np.inf]), RECORDS, np.arange(9)[::3],
        np.asfortranarray(np.arange(6, dtype=">f4").reshape(2, 3)), np.float16([1, 2]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("version", [None, (2, 0), (3, 0)])
def test_an_array_is_read_as_it_was_written(array: Any, version: tuple[int, int] | None) -> None:
    for found in (read(npy(array, version)), read(write_file(array), "application/octet-stream")):
        np.testing.assert_array_equal(found, array)
        assert found.dtype == array.dtype.newbyteorder("=") and found.shape == array.shape
        assert not found.flags.writeable
        with pytest.raises(ValueError, match="cannot set"):
            found.flags.writeable = True


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "cut off"), (b"\x93NUMPY", "cut off"), (b"PK\x03\x04" * 4, "does not begin"), (made(header(), b"", 4), "does not begin"),
        (b"\x93NUMPY\x01\x00", "cut off"), (made(header())[:20], "cut off"), (made("", length=5000), "cut off"),
        (made(" " * 5000), "too long"), (made(header(), b"", 2, 2**32 - 1), "too long"), (made("{"), "cannot be read"),
        (made("__import__('os').system('true')"), "cannot be read"), (made("(" * 4000), "cannot be read"),
        (made("[" * 2000 + "]" * 2000), "cannot be read|is none"), (made("-" * 4000 + "1"), "cannot be read"), (made("{}"), "header is none"),
        (made("1"), "header is none"), (made(header() [:-1] + ", 'more': 1}"), "header is none"), (made("9" * 4000), "cannot be read|none"),
        (made(header("|O"), bytes(8)), "no dtype|not accepted"), (made(header("O"), bytes(8)), "no dtype"),
        (made(header("<f8,<f8"), bytes(16)), "no dtype"), (made(header([("a", "|O")]), bytes(8)), "no dtype|not accepted"),
        (made(header(None), bytes(8)), "dtype is none"), (made(header("<V0")), "no dtype|not accepted"), (made(header("|S0")), "not accepted"),
        (made(header([("a", "<f8", (2**40,))]), bytes(8)), "dtype|bytes"), (made(header([["a", ["b"]]]), bytes(8)), "dtype"),
        (made(header(shape=(-1,)), bytes(8)), "shape"), (made(header(shape=(True,)), bytes(8)), "shape"), (made(header(shape=1), bytes(8)), "shape"),
        (made(header(shape=(2**62, 2**62)), bytes(8)), "does not have"), (made(header(shape=(2**63,)), bytes(8)), "shape"),
        (made(header(shape=(2,)), bytes(8)), "does not have"), (made(header(shape=(1,)), bytes(9)), "does not have"),
        (made(header(shape=(10**9, 0))), "rows without elements"), (made(header(shape=(1,) * 40), bytes(8)), "axes"),
        (made(header(shape=(1,) * 100), bytes(8)), "shape"), (made(header(fortran=1), bytes(8)), "header is none"),
        (made(header("|b1"), b"\x02"), "other than 0 and 1"), (made(header("<U1"), b"\xff" * 4), "no characters"),
    ],
)  # fmt: skip
def test_what_is_no_array_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(Misfit, match=said):
        read(data)


@settings(deadline=None)
@given(st.binary(max_size=30), st.integers(0, 200))
def test_broken_files_are_refused(noise: bytes, at: int) -> None:
    data = npy(RECORDS)
    try:
        found = read(data[:at] + noise + data[at + len(noise) :])
    except Misfit:
        return
    assert found.nbytes <= len(data)


class Service:
    def any(self, array: np.ndarray, times: int = 1) -> np.ndarray: ...

    def exact(self, array: Annotated[np.ndarray, Array("float32", (None, 2))]) -> np.ndarray: ...

    def many(self, arrays: list[np.ndarray]) -> list[np.ndarray]: ...


def test_arguments() -> None:
    def decoded(api: str, body: bytes, query: bytes = b"", media_type: bytes = NPY.encode()) -> Any:
        signature = Signature.of(Service, api)
        codec = ArgumentsCodec(signature)
        if is_multipart(media_type):
            return codec.decode(*BodyReader(signature).compose(body, media_type))
        return codec.decode_beside_file(query, body, media_type)

    found = decoded("any", npy([1, 2]), b"times=3")
    assert (found["array"].tolist(), found["times"]) == ([1, 2], 3)
    assert decoded("exact", npy(np.zeros((1, 2), "f4")))["array"].shape == (1, 2)
    for body in (npy(np.zeros((1, 2))), npy(np.zeros((2, 1), "f4")), b"x"):
        with pytest.raises(InvalidArguments) as caught:
            decoded("exact", body)
        assert caught.value.errors[0]["loc"] == ["array"]
    with pytest.raises(InvalidArguments, match="got text/plain"):
        decoded("any", b"1", media_type=b"text/plain")
    form = b"".join(
        b'--B\r\nContent-Disposition: form-data; name="arrays"; filename="a"\r\n\r\n%b\r\n' % npy(each)
        for each in ([1], [2.5])
    )  # fmt: skip
    found = decoded("many", form + b"--B--\r\n", media_type=b"multipart/form-data; boundary=B")
    assert [each.tolist() for each in found["arrays"]] == [[1], [2.5]]


def test_results() -> None:
    result = ResultCodec(np.ndarray, "S.f")
    media = MediaFormat(NPY.encode())
    assert read(result.encode(np.arange(3), media)).tolist() == [0, 1, 2]
    assert result.encode(np.array([1.0, np.nan, np.inf]), Format.JSON) == b"[1.0,null,null]"
    for value, said in (
        (np.array([{}]), "objects"), (np.ma.masked_array([1], [True]), "masked"),
    ):  # fmt: skip
        with pytest.raises((TypeError, ValueError), match=said):
            result.encode(value, media)
    accepts = accepts_of(np.ndarray)
    assert [accepts(each).content_type for each in (None, b"*/*", NPY.encode())] == [
        b"application/json", b"application/json", NPY.encode(),
    ]  # fmt: skip


def test_a_number_that_is_none_is_read_again() -> None:
    codec = ArgumentsCodec(Signature.of(Service, "any"))
    body = ResultCodec(np.ndarray, "S.f").encode(np.array([[1.0, np.nan]]), Format.JSON)
    found: Any = codec.decode(b'{"array": %b}' % body, Format.JSON)["array"]
    assert found.dtype == np.float64 and np.isnan(found[0, 1])
    exact = ArgumentsCodec(Signature.of(Service, "exact"))
    found = exact.decode(b'{"array": [[null, 1]]}', Format.JSON)["array"]
    assert found.dtype == np.float32 and np.isnan(found[0, 0])
