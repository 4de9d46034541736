"""Tensors are arrays for clients, and their elements between services, of every dtype. PyTorch is
large, so these tests run where somebody has installed it.
"""

from __future__ import annotations

import io
import struct
from typing import Annotated, Any

import httpx
import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")

import graphserve  # noqa: E402
from graphserve import Array, api, depends, service  # noqa: E402
from graphserve.errors import DeclarationError, InvalidArguments  # noqa: E402
from graphserve.wire.codec import ArgumentsCodec, Format, ResultCodec, UntypedCodec  # noqa: E402
from graphserve.wire.exceptions import Misfit  # noqa: E402
from graphserve.wire.extensions import no_memory  # noqa: E402
from graphserve.wire.formats import MediaFormat  # noqa: E402
from graphserve.wire.media.npy import NPY  # noqa: E402
from graphserve.wire.media.received import ReceivedFile  # noqa: E402
from graphserve.wire.media.tensors import MARK, Tensors  # noqa: E402
from graphserve.wire.signature import Signature  # noqa: E402

DTYPES = [
    "float32", "float64", "float16", "bfloat16", "int64", "int32", "int8", "uint8", "uint16", "bool", "complex64",
    "float8_e4m3fn",
]  # fmt: skip


class Service:
    def any(self, tensor: torch.Tensor) -> torch.Tensor: ...

    def exact(self, tensor: Annotated[torch.Tensor, Array("bfloat16", (None, 2))]) -> None: ...

    def many(self, tensors: dict[str, list[torch.Tensor]]) -> None: ...

    def wrong(self, tensor: Annotated[torch.Tensor, Array("float99")]) -> None: ...


def sent(tensor: Any, way: str = "memory") -> Any:
    if way == "socket":
        result = ResultCodec(torch.Tensor, "S.f")
        return result.decode(result.encode(tensor, Format.TYPED), no_memory)
    header, elements = Tensors.pack(tensor)
    return Tensors.unpack(memoryview(header), elements.toreadonly())


def bits(tensor: Any) -> list[int]:
    flat = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    return list(flat.reshape(-1).view(torch.uint8).tolist()) if tensor.numel() else []


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("way", ["socket", "memory"])
@pytest.mark.parametrize("shape", [(2, 3), (), (0, 3), (5,)])
def test_a_tensor_arrives_as_it_was(dtype: str, way: str, shape: tuple[int, ...]) -> None:
    tensor = torch.ones(shape).to(getattr(torch, dtype))
    found = sent(tensor, way)
    assert found.dtype == tensor.dtype and found.shape == tensor.shape
    assert bits(found) == bits(tensor)
    found.zero_()  # it is its own


def test_how_a_tensor_lies_is_no_matter() -> None:
    base = torch.arange(24.0).reshape(4, 6)
    for tensor in (
        base.T, base[::2, 1::2], base.clone().requires_grad_() * 2, torch.nn.Parameter(base), base.expand(2, 4, 6),
        torch.complex(base, base).conj(), torch.complex(base, base).conj().imag,
    ):  # fmt: skip
        assert torch.equal(sent(tensor), tensor.detach()) and not sent(tensor).requires_grad


def test_what_cannot_be_sent() -> None:
    for tensor in (torch.eye(2).to_sparse(), torch.empty(2, device="meta")):
        with pytest.raises(Misfit):
            Tensors.pack(tensor)


def test_arrays_of_clients() -> None:
    codec = ArgumentsCodec(Signature.of(Service, "any"))

    def decoded(text: bytes) -> Any:
        return codec.decode(b'{"tensor": %b}' % text, Format.JSON)["tensor"]

    for text, dtype in (
        (b"[[1, 2]]", torch.int64), (b"[1, 2.5]", torch.float32), (b"[true]", torch.bool), (b"1.5", torch.float32),
        (b"[null, 1]", torch.float32),
    ):  # fmt: skip
        assert decoded(text).dtype == dtype
    assert torch.isnan(decoded(b"[null, 1]")[0])
    exact = ArgumentsCodec(Signature.of(Service, "exact"))
    assert exact.decode(b'{"tensor": []}', Format.JSON)["tensor"].shape == (0, 2)
    for text in (b'["a"]', b"[[1], [1, 2]]", b"null", b'{"a": 1}', b'"x"'):
        with pytest.raises(InvalidArguments) as caught:
            decoded(text)
        assert caught.value.errors[0]["loc"] == ["tensor"]
    written = io.BytesIO()
    np.save(written, np.arange(3, dtype="<f8"))
    found = Tensors.read(ReceivedFile(written.getvalue(), NPY))
    assert found.dtype == torch.float64 and found.tolist() == [0, 1, 2]
    body = UntypedCodec().encode({"tensor": np.arange(3)})
    assert codec.decode(body, Format.TYPED, no_memory)["tensor"].tolist() == [0, 1, 2]
    with pytest.raises(InvalidArguments):  # tensors of services are nothing that the public sends
        codec.decode(UntypedCodec().encode({"tensor": torch.ones(2)}), Format.TYPED)


def test_what_is_demanded() -> None:
    codec = ArgumentsCodec(Signature.of(Service, "exact"))
    found: Any = codec.decode(b'{"tensor": [[1, 2.5]]}', Format.JSON)["tensor"]
    assert found.dtype == torch.bfloat16 and found.tolist() == [[1, 2.5]]
    for text in (b"[[1]]", b"[1, 2]", b"[[true, false]]", b"[[1e300, 1]]"):
        with pytest.raises(InvalidArguments):
            codec.decode(b'{"tensor": %b}' % text, Format.JSON)
    body = UntypedCodec().encode({"tensor": torch.ones(1, 2)})
    with pytest.raises(InvalidArguments, match="dtype bfloat16, got float32"):
        codec.decode(body, Format.TYPED, no_memory)
    many = ArgumentsCodec(Signature.of(Service, "many"))
    found = many.decode(b'{"tensors": {"a": [[1.5], [2]]}}', Format.JSON)["tensors"]
    assert [each.dtype for each in found["a"]] == [torch.float32, torch.int64]
    with pytest.raises(DeclarationError, match="no dtype 'float99'"):
        Signature.of(Service, "wrong")


def test_results_for_everybody() -> None:
    result = ResultCodec(torch.Tensor, "S.f")
    assert result.encode(torch.ones(2, dtype=torch.bfloat16), Format.JSON) == b"[1.0,1.0]"
    assert result.encode(torch.tensor([float("nan"), 1.0]), Format.JSON) == b"[null,1.0]"
    written = result.encode(torch.ones(2, dtype=torch.bfloat16), MediaFormat(NPY.encode()))
    assert np.load(io.BytesIO(written)).dtype == np.float32
    exact = ResultCodec(Annotated[torch.Tensor, Array("float32", (2,))], "S.f")
    exact.encode(torch.ones(2), Format.JSON)
    with pytest.raises(ValueError, match="shape"):
        exact.encode(torch.ones(3), Format.JSON)


def header_of(*parts: object) -> bytes:
    header = msgspec.msgpack.encode(parts)
    return struct.pack("<BI", MARK, len(header)) + header


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\xfe", b"\xfe" * 20, header_of(), header_of("float32"), header_of("float32", [1]), header_of("Tensor", [1]) + bytes(4),
        header_of("float32", [-1]) + bytes(4), header_of("float32", [2**62, 4]), header_of("float32", [2**60, 0]),
        header_of("float32", [1] * 100) + bytes(4), header_of("os.system", [1]), header_of("float32", [1]) + bytes(5),
    ],
)  # fmt: skip
def test_elements_that_are_none(data: bytes) -> None:
    with pytest.raises(Misfit):
        Tensors.unpack(memoryview(data))


@service
class Model:
    @api
    def twice(self, tensor: torch.Tensor) -> torch.Tensor:
        tensor *= 2
        return tensor


@service
class Gateway:
    model = depends(Model)

    @api
    async def twice(self, tensor: torch.Tensor) -> torch.Tensor:
        return await self.model.twice(tensor)

    @api
    async def exact(self, tensor: Annotated[torch.Tensor, Array("bfloat16", (None, 2))]) -> int:
        return len(tensor)


@pytest.mark.anyio
async def test_in_one_process() -> None:
    async with graphserve.local(Gateway) as local:
        tensor = torch.ones(3, dtype=torch.bfloat16)
        assert torch.equal(await local.twice(tensor), tensor * 2)
        assert tensor[0] == 1


def test_over_a_hop() -> None:
    with graphserve.serve("tests.wire.test_tensors:Gateway", port=0) as server:
        for size in (3, 300_000):
            tensor = torch.arange(size).to(torch.bfloat16)
            assert torch.equal(server.call.twice(tensor).result(), tensor * 2)
        answer = httpx.post(f"{server.url}/twice", json={"tensor": [[1, None]]})
        assert answer.json() == [[2.0, None]]
        answer = httpx.post(f"{server.url}/twice", files={"tensor": b"x"})
        assert answer.status_code == 422 and answer.json()["errors"][0]["loc"] == ["tensor"]
        said = httpx.get(f"{server.url}/openapi.json").json()["paths"]
        content = said["/exact"]["post"]["requestBody"]["content"]
        schema = content["application/json"]["schema"]["properties"]["tensor"]
        assert schema["description"].startswith("A tensor of bfloat16, shape any × 2")
        assert NPY in content and NPY in said["/twice"]["post"]["responses"]["200"]["content"]
