"""Tensors (`torch.Tensor`): for clients they are arrays, between services their elements, of every
dtype that PyTorch has.

Only this file knows PyTorch, which is imported where an API has a tensor.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from graphserve.system.frozen import dataclass
from graphserve.wire import arrays, type_hints
from graphserve.wire.exceptions import Misfit
from graphserve.wire.media import npy
from graphserve.wire.media.classes import MARKS
from graphserve.wire.media.octets import no_options
from graphserve.wire.media.received import ReceivedFile

if TYPE_CHECKING:
    import torch

    from graphserve.wire.media.kinds import PackedKind

    Tensor: TypeAlias = torch.Tensor

MARK = MARKS["tensor"]
_LEAD = struct.Struct("<BI")  # the mark, and the length of the header behind it
_OF_LISTS = (
    "_graphserve_of_lists"  # the attribute of one that JSON's lists were made, until `admit`
)


class _Header(msgspec.Struct, array_like=True, frozen=True):
    dtype: str
    shape: list[int]


_read_header = msgspec.msgpack.Decoder(_Header).decode
_write_header = msgspec.msgpack.Encoder().encode


class Tensors:
    """Tensors as a kind of value."""

    received = (npy.NPY,)
    offers = (npy.NPY,)
    json_first = True
    is_slow = False
    by_type = True
    schema: Mapping[str, object] = {
        "type": "array",
        "items": {},
        "description": "A tensor, any shape, as nested lists.",
    }

    @staticmethod
    def read(value: object) -> Tensor:
        """Return the tensor in a file, an array or lists, in memory of its own.

        Raises:
            Misfit: it is none, or would cost too much.
        """
        import torch

        if isinstance(value, torch.Tensor):
            return value
        of_lists = False
        if isinstance(value, ReceivedFile):
            array = npy.read_file(value)
        elif type_hints.is_array_value(value):
            array = value
        else:
            array = arrays.from_list(value)
            of_lists = True
        try:
            tensor = torch.from_numpy(array.copy())
        except TypeError:
            said = f"Expected an array of numbers or of booleans, got {array.dtype}"
            raise Misfit(said) from None
        if of_lists:
            setattr(tensor, _OF_LISTS, True)
        return tensor

    @staticmethod
    def takes(media_type: str) -> bool:
        """Return whether it is said to be a file of an array, or nothing is said."""
        return npy.ArrayFiles.takes(media_type)

    @staticmethod
    def fault(media_type: str, options: Mapping[str, object]) -> str | None:
        """Return what is wrong with it: a tensor is sent as an array."""
        if media_type != npy.NPY:
            return f"a tensor can be sent as {npy.NPY}, not as {media_type}"
        return no_options(media_type, options)

    @staticmethod
    def write(value: object, media_type: str, options: Mapping[str, object]) -> bytes:
        """Return a tensor as a file of numpy's.

        Raises:
            TypeError: it is none, or none that an array can be.
        """
        return npy.write_file(_array(value))

    @staticmethod
    def plain(value: object) -> object:
        """Return a tensor as an array, of float32 where numpy does not have its dtype."""
        return _array(value)

    @staticmethod
    def packs_quickly(value: object) -> bool:
        """Return False: it may be of any size."""
        return False

    @staticmethod
    def pack(value: object) -> tuple[bytes, memoryview]:
        """Return a tensor as a header and its elements.

        Raises:
            Misfit: it is sparse or quantized, or has no elements.
        """
        import torch

        tensor = _dense(value)
        name = str(tensor.dtype).removeprefix("torch.")
        header = _write_header(_Header(name, list(tensor.shape)))
        elements = memoryview(b"")
        if tensor.numel():
            flat = torch.view_as_real(tensor) if tensor.is_complex() else tensor
            elements = flat.reshape(-1).view(torch.uint8).numpy().data
        return _LEAD.pack(MARK, len(header)) + header, elements

    @staticmethod
    def unpack(header: memoryview, payload: memoryview | None = None) -> Tensor:
        """Return the tensor that these are of, in memory of its own: PyTorch knows no tensor that
        is only read.
        """
        import numpy as np
        import torch

        said, behind = _split(header)
        elements = behind if payload is None else payload
        dtype = getattr(torch, said.dtype, None)
        if not isinstance(dtype, torch.dtype) or any(length < 0 for length in said.shape):
            raise Misfit("the header of a tensor cannot be read")
        number = 1
        for length in said.shape:
            number *= length
        if number * dtype.itemsize != elements.nbytes:
            raise Misfit(
                f"a tensor of dtype {said.dtype} and shape {tuple(said.shape)} does not have"
                f" {elements.nbytes} bytes"
            )
        arrays.check_rows(tuple(said.shape))
        try:
            tensor = torch.empty(said.shape, dtype=dtype)
            if elements.nbytes:
                flat = torch.view_as_real(tensor) if dtype.is_complex else tensor
                np.copyto(flat.view(-1).view(torch.uint8).numpy(), np.frombuffer(elements, "u1"))
        except (RuntimeError, TypeError) as exc:
            raise Misfit(f"a tensor of shape {tuple(said.shape)} cannot be: {exc}") from None
        return tensor


@dataclass(frozen=True)
class TensorDemand:
    """Holds what a hint demands of a tensor; `demand` makes it.

    Args:
        dtype: the exact dtype, or None.
        shape: as in `Array`.
    """

    dtype: torch.dtype | None
    shape: tuple[int | None, ...] | None


def demand(metadata: tuple[object, ...]) -> TensorDemand:
    """Read what the `Array` of a tensor's hint demands; its dtype is PyTorch's, `bfloat16` too.

    Raises:
        TypeError: there is no such dtype.
    """
    import torch

    dtype = shape = None
    for said in metadata:
        if isinstance(said, arrays.Array):
            if said.dtype is not None:
                dtype = getattr(torch, said.dtype, None)
                if not isinstance(dtype, torch.dtype):
                    raise TypeError(f"torch has no dtype {said.dtype!r}")
            shape = said.shape if said.shape is not None else shape
    return TensorDemand(dtype, shape)


def admit(tensor: Tensor, wanted: TensorDemand) -> Tensor:
    """Check a tensor that arrived; of lists it gets the dtype that is demanded, or else PyTorch's
    own for numbers with fractions.

    Raises:
        Misfit: its dtype or shape is not what is demanded.
    """
    import torch

    if getattr(tensor, _OF_LISTS, False):
        delattr(tensor, _OF_LISTS)
        default = torch.get_default_dtype() if tensor.is_floating_point() else tensor.dtype
        tensor = _converted(tensor, wanted.dtype or default)
        tensor = tensor.reshape(arrays.shape_of_empty(tuple(tensor.shape), wanted.shape))
    if wanted.dtype is not None and tensor.dtype != wanted.dtype:
        raise Misfit(f"Expected a tensor of dtype {_name(wanted)}, got {_name(tensor)}")
    arrays.check_shape("a tensor", tuple(tensor.shape), wanted.shape)
    return tensor


def _converted(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    import torch

    if tensor.dtype == dtype or not tensor.numel():
        return tensor.to(dtype)
    is_number = tensor.dtype != torch.bool
    if dtype.is_floating_point and is_number:
        found = tensor.to(dtype)
        if not torch.equal(torch.isfinite(found.float()), torch.isfinite(tensor)):
            raise Misfit(f"Expected a tensor of dtype {dtype}, got a number that is too large")
        return found
    if is_number and not tensor.is_floating_point() and dtype != torch.bool:
        if not dtype.is_complex:
            bounds = torch.iinfo(dtype)
            if int(tensor.min()) < bounds.min or int(tensor.max()) > bounds.max:
                raise Misfit(f"Expected a tensor of {dtype}, got a number out of its range")
        return tensor.to(dtype)
    raise Misfit(f"Expected a tensor of dtype {dtype}, got {tensor.dtype}")


def _name(of: Any) -> str:
    return str(of.dtype).removeprefix("torch.")


def _dense(value: object) -> Tensor:
    """Return a tensor with its elements in order, in the memory of the CPU, without its history."""
    import torch

    if not isinstance(value, torch.Tensor):
        raise TypeError(f"Expected a tensor, got `{type(value).__name__}`")
    if value.is_sparse or value.layout != torch.strided or value.is_quantized or value.is_nested:
        raise Misfit("a tensor that is sparse, nested or quantized cannot be sent: make it dense")
    if value.is_meta:
        raise Misfit("a tensor on the device 'meta' has no elements that could be sent")
    return value.detach().resolve_conj().resolve_neg().cpu().contiguous()


def _array(value: object) -> Any:
    tensor = _dense(value)
    try:
        return tensor.numpy()
    except TypeError:  # numpy does not have bfloat16, and others that are small
        return tensor.float().numpy()


def _split(data: memoryview) -> tuple[_Header, memoryview]:
    if data.nbytes < _LEAD.size or (end := _LEAD.size + _LEAD.unpack_from(data)[1]) > data.nbytes:
        raise Misfit("the header of a tensor is cut off")
    try:
        header = _read_header(data[_LEAD.size : end])
    except msgspec.DecodeError as exc:
        raise Misfit(f"the header of a tensor cannot be read: {exc}") from None
    if len(header.shape) > arrays.MAX_DIMENSIONS:
        raise Misfit(f"a tensor has {len(header.shape)} dimensions")
    return header, data[end:]


TENSORS: PackedKind = Tensors()
