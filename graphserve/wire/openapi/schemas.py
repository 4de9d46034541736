"""Makes the JSON Schemas of types, as readers and generators of clients take them, and collects the
components that they refer to.
"""

from __future__ import annotations

import re
import typing
from typing import Annotated

import msgspec

from graphserve.system import own_json
from graphserve.wire import arrays, pydantic_models, type_hints
from graphserve.wire.media.kinds import packed_kind
from graphserve.wire.openapi.time_formats import Json, add_formats
from graphserve.wire.signature import uses_adapter
from graphserve.wire.type_hints import Hint

COMPONENTS = "#/components/schemas/"  # in front of the name of a component that is referred to
_TEMPLATE = COMPONENTS + "{name}"
_TYPES_OF_KINDS = {
    "b": "boolean",
    "i": "integer",
    "u": "integer",
    "f": "number",
    "S": "string",
    "U": "string",
    "M": "string",
}


class Schemas:
    """Makes the schemas of types, and collects the components that they refer to."""

    def __init__(self) -> None:
        self.components: Json = {}

    def of(self, hint: Hint, output: bool) -> Json:
        """Return the schema of a type, as an argument or as a result."""
        if uses_adapter(hint):
            return self._of_model(hint, output)
        hint = type_hints.rewrite(hint, _describe_array)
        (schema,), components = msgspec.json.schema_components(
            [hint], schema_hook=lambda kind: self._of_custom(kind, output), ref_template=_TEMPLATE
        )
        add_formats(schema, msgspec.inspect.type_info(hint), components)
        return self._adopt(schema, components)

    def _of_model(self, hint: Hint, output: bool) -> Json:
        schema = pydantic_models.Adapter(hint).schema(_TEMPLATE.replace("name", "model"), output)
        return self._adopt(schema, schema.pop("$defs", {}))

    def _of_custom(self, kind: Hint, output: bool) -> Json:
        origin = typing.get_origin(kind) or kind
        if type_hints.is_array(origin):
            return array_schema(arrays.demand(kind, ()))
        if type_hints.is_scalar(origin):
            return array_schema(arrays.demand(None, (arrays.Array(origin.__name__, ()),)))
        if isinstance(origin, type) and (packed := packed_kind(origin)) is not None:
            return dict(packed.schema)
        return (
            self._of_model(kind, output)
            if type_hints.is_model(origin)
            else {"description": "any value"}
        )

    def _adopt(self, schema: Json, components: Json) -> Json:
        _for_clients([schema, components])
        # Two classes may have one name: the later one gets a number.
        names = {name: self._free(name, component) for name, component in components.items()}
        moved = own_json.loads(
            _REFERENCE.sub(
                lambda m: m[1] + names.get(m[2], m[2]) + m[3], own_json.dumps([schema, components])
            )
        )
        for name, component in moved[1].items():
            self.components.setdefault(names[name], component)
        return typing.cast(Json, moved[0])

    def _free(self, name: str, component: Json) -> str:
        plain = name
        number = 1
        while name == "Problem" or not _is_same(self.components.get(name, component), component):
            number += 1
            name = f"{plain}_{number}"
        return name


def _for_clients(value: object) -> None:
    """Add what generators of clients need.

    Each string of base64 gets the pattern of base64 (RFC 4648, section 4), at which
    `contentEncoding` only hints. A fixed tuple is bounded by `maxItems`: many generators cannot
    read `items: false`, and some want to know what its items are. An enumeration gets its `type`.
    """
    if isinstance(value, dict):
        if value.get("contentEncoding") == "base64":
            value.setdefault("pattern", _BASE64)
        if "prefixItems" in value and value.pop("items", False) is False:
            _bound(value, value["prefixItems"])
        if isinstance(value.get("enum"), list) and "type" not in value:
            _say_types(value)
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            _for_clients(each)


def _bound(value: Json, items: list[Json]) -> None:
    """Say of a fixed tuple how long it is, and of which types its items are."""
    value["maxItems"] = len(items)
    if all(map(_is_simple, items)):
        kinds = [each for index, each in enumerate(items) if each not in items[:index]]
        value["items"] = kinds[0] if len(kinds) == 1 else {"anyOf": kinds}


def _is_simple(schema: Json) -> bool:
    """Return whether a schema may be said twice without a second type for generators of clients."""
    return "$ref" in schema or schema.keys() <= {"type", "format", "pattern"}


def _say_types(schema: Json) -> None:
    """Give an enumeration its type; one of several types becomes a choice of enumerations."""
    kinds: dict[str, list[object]] = {}
    for each in schema["enum"]:
        kinds.setdefault(_TYPES_OF_CONSTANTS[type(each)], []).append(each)
    if len(kinds) == 1:
        schema["type"] = next(iter(kinds))
    elif kinds:
        del schema["enum"]
        schema["anyOf"] = [{"type": kind, "enum": values} for kind, values in kinds.items()]


def _is_same(one: Json, other: Json) -> bool:
    """Return whether two schemas are of one type: a result has what an argument may leave out, and
    that may be all.
    """
    return bool(_without_required(one) == _without_required(other))


def _without_required(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_required(each) for key, each in value.items() if key != "required"}
    return [_without_required(each) for each in value] if isinstance(value, list) else value


_TYPES_OF_CONSTANTS = {
    str: "string",
    int: "integer",
    bool: "boolean",
    float: "number",
    type(None): "null",
}
_BASE64 = "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"
_REFERENCE = re.compile(r'("#/components/schemas/)([^"/]+)(")')


def array_schema(wanted: arrays.Demand) -> Json:
    """Return the schema of an array as JSON has it: nested lists."""
    kind = wanted.dtype.kind if wanted.dtype is not None else _kind_of(wanted.scalar)
    element: Json = {"type": _TYPES_OF_KINDS[kind]} if kind in _TYPES_OF_KINDS else {}
    dtype = (
        str(wanted.dtype)
        if wanted.dtype is not None
        else wanted.scalar.__name__
        if wanted.scalar
        else "any dtype"
    )
    if wanted.shape is None:
        return {
            "type": "array",
            "items": {},
            "description": f"An array of {dtype}, any shape, as nested lists.",
        }
    schema = element
    for length in reversed(wanted.shape):
        schema = {"type": "array", "items": schema}
        if length is not None:
            schema |= {"minItems": length, "maxItems": length}
    if not wanted.shape:
        return element | {"description": f"One {dtype}."}
    shape = " × ".join("any" if length is None else str(length) for length in wanted.shape)
    return schema | {"description": f"An array of {dtype}, shape {shape}, as nested lists."}


def _kind_of(scalar: type | None) -> str:
    import numpy as np

    kinds = {
        np.bool_: "b",
        np.integer: "i",
        np.floating: "f",
        np.number: "f",
        np.str_: "U",
        np.bytes_: "S",
        np.datetime64: "M",
    }
    return next((kind for base, kind in kinds.items() if scalar and issubclass(scalar, base)), "")


def _describe_array(part: type_hints.Part) -> Hint:
    if part.kind == "tensor" and part.metadata:
        from graphserve.wire.media import tensors

        demanded = tensors.demand(part.metadata)
        said = array_schema(arrays.Demand(None, None, demanded.shape))
        dtype = str(demanded.dtype).removeprefix("torch.") if demanded.dtype else "any dtype"
        described = str(said["description"]).replace("any dtype", dtype, 1)
        said["description"] = described.replace("An array", "A tensor", 1)
        return Annotated[part.origin, msgspec.Meta(extra_json_schema=said)]
    if part.kind != "array":
        return None
    schema = array_schema(arrays.demand(part.hint, part.metadata))
    return Annotated[part.origin, msgspec.Meta(extra_json_schema=schema)]
