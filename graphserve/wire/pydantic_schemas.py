"""Changes schemas of pydantic's before a validator and a serializer are made of them, and reads
what they say.

Bytes become base64 in JSON, where pydantic itself would read and write UTF-8; in public bodies,
sets and dicts are made only of values whose hashes are spread. Only copies of a schema are changed:
the user's classes stay as they are. A part that has a serializer of its own keeps its JSON.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, TypeAlias

from graphserve.wire.costs.bounds import HASHED_FEW
from graphserve.wire.costs.hash_spread import crowded

if TYPE_CHECKING:
    from pydantic_core import CoreConfig, SchemaSerializer, SchemaValidator

    Way = tuple[SchemaValidator, SchemaSerializer]  # into the process and out of it

# A schema of pydantic's (`pydantic_core.CoreSchema`), as it is walked. What is in it is a schema, a
# list of parts, or something else that is left alone.
Schema: TypeAlias = Mapping[str, object]
SchemaPart: TypeAlias = object

# Takes values out of their wrappers, or refuses them.
Spread = (
    Callable[[set["_Wrapped"]], set[object]]
    | Callable[[frozenset["_Wrapped"]], frozenset[object]]
    | Callable[[dict["_Wrapped", object]], dict[object, object]]
)

_COMPLETE = "__pydantic_complete__"  # the attribute of a class that has its validator
# with one of these a model says itself what its JSON is
OWN = frozenset({"ser_json_bytes", "val_json_bytes"})
_NO_SCHEMAS = frozenset(
    {"cls", "config", "default", "expected", "function", "members", "metadata", "serialization"}
)
_NAMED = frozenset({"fields", "choices"})  # in these, keys are names that the user gave
_STRING = {"type": "str"}
_ANY = {"type": "any"}
# Types of schemas that have another way to a value than the class that they name.
_OTHER_WAYS = frozenset(
    {
        "default",
        "union",
        "tagged-union",
        "function-before",
        "function-wrap",
        "function-plain",
        "chain",
    }
)
# What a client cannot choose the hashes of.
_SAFE = frozenset({"str", "bytes", "bool", "none", "date", "literal", "enum"})


def with_base64(schema: Schema, everywhere: bool) -> Schema:
    """Return a schema of pydantic's whose bytes are base64 in JSON; `schema` itself if it has none.

    Args:
        schema: the schema.
        everywhere: whether models that say themselves how bytes look in JSON are not asked, as
            between nodes.
    """
    return _with_base64(schema, True, everywhere)


def build(schema: Schema, config: CoreConfig) -> Way:
    """Return a validator and a serializer of a changed schema.

    pydantic would take those that the classes in it have already. Before 2.13 it has no switch for
    that, but a class that is not complete has none to take.
    """
    import pydantic_core

    if "_use_prebuilt" in (pydantic_core.SchemaValidator.__text_signature__ or ""):
        return (
            pydantic_core.SchemaValidator(schema, config, _use_prebuilt=False),
            pydantic_core.SchemaSerializer(schema, config, _use_prebuilt=False),
        )
    classes = [cls for cls in _classes(schema) if vars(cls).get(_COMPLETE)]
    try:
        for cls in classes:
            setattr(cls, _COMPLETE, False)
        return pydantic_core.SchemaValidator(schema, config), pydantic_core.SchemaSerializer(
            schema, config
        )
    finally:
        for cls in classes:
            setattr(cls, _COMPLETE, True)


def guarded(schema: Schema) -> Schema:
    """Return a schema of pydantic's that makes a set, or a dict,
    only of what has hashes that are spread.

    pydantic validates each element and each key, and puts it in a wrapper that no client can choose
    the hash of. Only when the hashes of all are known to be spread, they are taken out.
    """
    parts: dict[str, SchemaPart] = {}
    for key, part in schema.items():
        if key in _NAMED and isinstance(part, dict):
            parts[key] = {name: _guarded(one) for name, one in part.items()}
        else:
            parts[key] = part if key in _NO_SCHEMAS else _guarded(part)
    kind = parts.get("type")
    if kind in ("set", "frozenset"):
        items = parts.get("items_schema", _ANY)
        if _type_of(items) in _SAFE:
            return parts
        parts["items_schema"] = _wrapping(items)
        take_out = _spread_set if kind == "set" else _spread_frozenset
        return _unwrapping(parts, take_out, {"items_schema": _ANY})
    if kind == "dict":
        keys = parts.get("keys_schema", _ANY)
        if _type_of(keys) not in _SAFE | {"any"}:
            parts["keys_schema"] = _wrapping(keys)
            return _unwrapping(parts, _spread_dict, {"keys_schema": _ANY, "values_schema": _ANY})
    return parts


def _guarded(part: SchemaPart) -> SchemaPart:
    if isinstance(part, (list, tuple)):
        return type(part)(_guarded(each) for each in part)
    return guarded(part) if isinstance(part, dict) else part


def _type_of(part: SchemaPart) -> object:
    return part.get("type") if isinstance(part, dict) else None


def _wrapping(schema: SchemaPart) -> Schema:
    return {
        "type": "function-after",
        "function": {"type": "no-info", "function": _Wrapped},
        "schema": schema,
    }


def _unwrapping(schema: Schema, take_out: Spread, inner: Schema) -> Schema:
    bounds = {key: schema[key] for key in ("min_length", "max_length") if key in schema}
    plain = {
        key: part for key, part in schema.items() if key not in ("min_length", "max_length", "ref")
    }
    changed: Schema = {
        "type": "function-after",
        "function": {"type": "no-info", "function": take_out},
        "schema": plain,
    }
    if bounds:  # pydantic makes another one then, in the order of this one
        steps = [changed, {"type": schema["type"], **inner, **bounds}]
        if take_out is not _spread_dict:
            again = {
                "type": "function-after",
                "function": {"type": "no-info", "function": _spread_again},
            }
            steps.insert(1, {**again, "schema": {"type": "any"}})
        changed = {"type": "chain", "steps": steps}
    return {**changed, "ref": schema["ref"]} if "ref" in schema else changed


class _Wrapped:
    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value


def _spread_set(wrapped: set[_Wrapped]) -> set[object]:
    return set(_spread([each.value for each in wrapped], True))


def _spread_frozenset(wrapped: frozenset[_Wrapped]) -> frozenset[object]:
    return frozenset(_spread([each.value for each in wrapped], True))


def _spread_again(made: Collection[object]) -> Collection[object]:
    _spread(list(made), True)
    return made


def _spread_dict(wrapped: dict[_Wrapped, object]) -> dict[object, object]:
    return dict(
        zip(_spread([each.value for each in wrapped], False), wrapped.values(), strict=True)
    )


def _spread(values: list[object], is_set: bool) -> list[object]:
    from pydantic_core import PydanticCustomError

    if len(values) > HASHED_FEW and (said := crowded(values, is_set)) is not None:
        raise PydanticCustomError("value_error", said)
    return values


def holds_any(part: SchemaPart) -> bool:
    """Return whether something in it may be anything, bytes too."""
    return _type_of(part) == "any" or any(map(holds_any, below(part)))


def schema_is_keyed(part: SchemaPart) -> bool:
    """Return whether something in it is a set, or a dict whose keys may be anything but text."""
    if isinstance(part, dict):
        kind = part.get("type")
        if kind in ("set", "frozenset"):
            return True
        if kind == "dict" and _type_of(part.get("keys_schema")) != "str":
            return True
    return any(map(schema_is_keyed, below(part)))


def misplaced(part: SchemaPart) -> type | None:
    """Return a class that is no type of pydantic's where a value is needed: what has it can come
    from no JSON.
    """
    if isinstance(part, dict):
        if "serialization" in part or part.get("serialization_exclude"):
            return None
        kind = part.get("type")
        if kind == "is-instance":
            return part["cls"] if isinstance(part["cls"], type) else None
        if kind == "json-or-python":
            return misplaced(part["json_schema"])
        if kind == "lax-or-strict":
            return misplaced(part["strict_schema"])
        if kind in _OTHER_WAYS:
            return None
    return next((found for each in below(part) if (found := misplaced(each)) is not None), None)


def _change(part: SchemaPart, ours: bool, everywhere: bool) -> SchemaPart:
    if isinstance(part, (list, tuple)):
        changed = [_change(each, ours, everywhere) for each in part]
        is_same = all(new is old for new, old in zip(changed, part, strict=True))
        return part if is_same else type(part)(changed)
    return _with_base64(part, ours, everywhere) if isinstance(part, dict) else part


def _with_base64(node: Schema, ours: bool, everywhere: bool) -> Schema:
    if "serialization" in node:
        return node
    if isinstance(config := node.get("config"), dict):
        ours = everywhere or not OWN & config.keys()
    if node.get("type") == "bytes":
        return _as_base64(node) if ours else node
    parts: dict[str, SchemaPart] = {}
    for key, part in node.items():
        if key in _NAMED and isinstance(part, dict):
            named = {name: _change(one, ours, everywhere) for name, one in part.items()}
            is_same = all(one is part[name] for name, one in named.items())
            parts[key] = part if is_same else named
        elif key not in _NO_SCHEMAS:
            parts[key] = _change(part, ours, everywhere)
    return {**node, **parts} if any(part is not node[key] for key, part in parts.items()) else node


def below(part: SchemaPart) -> list[SchemaPart]:
    """Return the schemas in a schema, and lists of them."""
    if not isinstance(part, dict):
        return list(part) if isinstance(part, (list, tuple)) else []
    found: list[SchemaPart] = []
    for key, each in part.items():
        if key in _NAMED and isinstance(each, dict):
            found += each.values()
        elif key not in _NO_SCHEMAS:
            found.append(each)
    return found


def _classes(schema: SchemaPart) -> Iterator[type]:
    if isinstance(schema, dict) and isinstance(schema.get("cls"), type):
        yield schema["cls"]
    for part in below(schema):
        yield from _classes(part)


def _as_base64(node: Schema) -> Schema:
    return {
        **({"ref": node["ref"]} if "ref" in node else {}),
        "type": "function-before",
        "function": {"type": "no-info", "function": _decode},
        "schema": {key: value for key, value in node.items() if key != "ref"},
        "serialization": {
            "type": "function-plain",
            "function": _encode,
            "when_used": "json",
            "return_schema": _STRING,
        },
    }


def _decode(value: object) -> object:
    from pydantic_core import PydanticCustomError

    if type(value) is not str:
        return value
    try:
        if len(value) % 4:  # it takes one padding character too many
            raise ValueError(value)
        return binascii.a2b_base64(value, strict_mode=True)
    except ValueError:
        raise PydanticCustomError(
            "bytes_invalid_encoding", "Input should be bytes in base64"
        ) from None


def _encode(value: object) -> str:
    from pydantic_core import PydanticSerializationUnexpectedValue

    if not isinstance(value, (bytes, bytearray)):
        raise PydanticSerializationUnexpectedValue(
            f"Expected `bytes` [input_type={type(value).__name__}]"
        )
    return binascii.b2a_base64(value, newline=False).decode("ascii")
