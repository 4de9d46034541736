"""Schemas of pydantic's, changed before a validator and a serializer are made of them, and what can
be read from one.

Bytes become base64 in JSON, where pydantic itself would read and write UTF-8; in public bodies,
sets and dicts are made only of values whose hashes are spread. Only copies of a schema are changed:
the user's classes stay as they are. A part that has a serializer of its own keeps its JSON.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

from graphserve.wire.costs.bounds import HASHED_FEW
from graphserve.wire.costs.hash_spread import crowded

if TYPE_CHECKING:
    from pydantic_core import CoreConfig, SchemaSerializer, SchemaValidator

    Way = tuple[SchemaValidator, SchemaSerializer]  # into the process and out of it

# A part of a schema of pydantic's (`pydantic_core.CoreSchema`), as it is walked: a mapping, or a
# list of parts.
Schema: TypeAlias = Any

Spread = Callable[[Any], Collection[object]]  # takes values out of what holds them, or refuses them

# with one of these a model says itself what its JSON is
OWN = frozenset({"ser_json_bytes", "val_json_bytes"})
_NO_SCHEMAS = frozenset(
    {"cls", "config", "default", "expected", "function", "members", "metadata", "serialization"}
)
_NAMED = frozenset({"fields", "choices"})  # what these hold goes by names that the user gave
_STRING = {"type": "str"}
# What a client cannot choose the hashes of.
_SAFE = frozenset({"str", "bytes", "bool", "none", "date", "literal", "enum"})


def with_base64(schema: Schema, everywhere: bool) -> Schema:
    """Return a schema of pydantic's whose bytes are base64 in JSON; `schema` itself if it has none.

    Args:
        schema: the schema.
        everywhere: whether models that say themselves how bytes look in JSON are not asked, as
            between nodes.
    """
    return _change(schema, True, everywhere)


def build(schema: Schema, config: CoreConfig) -> Way:
    """Return a validator and a serializer of a changed schema.

    pydantic would take those that the classes in it have already. Before 2.13 it has no switch for
    that, but a class that is not complete has none to take.
    """
    import pydantic_core

    if "_use_prebuilt" in (pydantic_core.SchemaValidator.__text_signature__ or ""):
        fresh: Any = {"_use_prebuilt": False}
        return (
            pydantic_core.SchemaValidator(schema, config, **fresh),
            pydantic_core.SchemaSerializer(schema, config, **fresh),
        )
    classes = [cls for cls in _classes(schema) if vars(cls).get("__pydantic_complete__")]
    try:
        for cls in classes:
            cls.__pydantic_complete__ = False
        return pydantic_core.SchemaValidator(schema, config), pydantic_core.SchemaSerializer(
            schema, config
        )
    finally:
        for cls in classes:
            cls.__pydantic_complete__ = True


def guarded(schema: Schema) -> Schema:
    """Return a schema of pydantic's that makes a set, or a dict, only of what has hashes that are
    spread.

    pydantic validates each element and each key, and puts it in a holder that no client can choose
    the hash of. Only when the hashes of all are known to be spread, they are taken out.
    """
    if isinstance(schema, (list, tuple)):
        return type(schema)(guarded(part) for part in schema)
    if not isinstance(schema, dict):
        return schema
    parts: dict[str, Schema] = {}
    for key, part in schema.items():
        if key in _NAMED and isinstance(part, dict):
            parts[key] = {name: guarded(one) for name, one in part.items()}
        else:
            parts[key] = part if key in _NO_SCHEMAS else guarded(part)
    kind = parts.get("type")
    if kind in ("set", "frozenset"):
        items = parts.get("items_schema", {"type": "any"})
        if items.get("type") in _SAFE:
            return parts
        return _unheld(
            {**parts, "items_schema": _held(items)}, _KINDS[kind], {"items_schema": {"type": "any"}}
        )
    if kind == "dict" and parts.get("keys_schema", {"type": "any"}).get("type") not in _SAFE | {
        "any"
    }:
        parts = {**parts, "keys_schema": _held(parts["keys_schema"])}
        return _unheld(
            parts, _spread_dict, {"keys_schema": {"type": "any"}, "values_schema": {"type": "any"}}
        )
    return parts


def _held(schema: Schema) -> Schema:
    return {
        "type": "function-after",
        "function": {"type": "no-info", "function": _Held},
        "schema": schema,
    }


def _unheld(schema: dict[str, Schema], take_out: Spread, inner: Schema) -> Schema:
    bounds = {key: schema[key] for key in ("min_length", "max_length") if key in schema}
    plain = {
        key: part for key, part in schema.items() if key not in ("min_length", "max_length", "ref")
    }
    changed: dict[str, Schema] = {
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


class _Held:
    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value


def _spread_set(held: set[_Held]) -> set[object]:
    return set(_spread([each.value for each in held], True))


def _spread_frozenset(held: frozenset[_Held]) -> frozenset[object]:
    return frozenset(_spread([each.value for each in held], True))


def _spread_again(made: Collection[object]) -> Collection[object]:
    _spread(list(made), True)
    return made


def _spread_dict(held: dict[_Held, object]) -> dict[object, object]:
    return dict(zip(_spread([each.value for each in held], False), held.values(), strict=True))


_KINDS: dict[str, Spread] = {"set": _spread_set, "frozenset": _spread_frozenset}


def _spread(values: list[object], is_set: bool) -> list[object]:
    from pydantic_core import PydanticCustomError

    if len(values) > HASHED_FEW and (said := crowded(values, is_set)) is not None:
        raise PydanticCustomError("value_error", said)
    return values


def holds_any(schema: Schema) -> bool:
    """Return whether a part of it may be anything, bytes too."""
    return (isinstance(schema, dict) and schema.get("type") == "any") or any(
        map(holds_any, below(schema))
    )


def schema_is_keyed(schema: Schema) -> bool:
    """Return whether a part of it is a set, or a dict whose keys may be anything but text."""
    if isinstance(schema, dict):
        kind = schema.get("type")
        if kind in ("set", "frozenset"):
            return True
        if kind == "dict" and schema.get("keys_schema", {}).get("type") != "str":
            return True
    return any(map(schema_is_keyed, below(schema)))


def misplaced(schema: Schema) -> type | None:
    """Return a class that is no type of pydantic's where a value is needed: what has it can come
    from no JSON.
    """
    if isinstance(schema, dict) and (
        "serialization" in schema or schema.get("serialization_exclude")
    ):
        return None
    kind = schema.get("type") if isinstance(schema, dict) else None
    if kind == "is-instance":
        return schema["cls"] if isinstance(schema["cls"], type) else None
    if kind == "json-or-python":
        return misplaced(schema["json_schema"])
    if kind == "lax-or-strict":
        return misplaced(schema["strict_schema"])
    if kind in (
        "default",
        "union",
        "tagged-union",
        "function-before",
        "function-wrap",
        "function-plain",
        "chain",
    ):
        return None  # there may be another way
    return next((found for part in below(schema) if (found := misplaced(part)) is not None), None)


def _change(node: Schema, ours: bool, everywhere: bool) -> Schema:
    if isinstance(node, (list, tuple)):
        changed = [_change(part, ours, everywhere) for part in node]
        return (
            type(node)(changed)
            if any(new is not old for new, old in zip(changed, node, strict=True))
            else node
        )
    if not isinstance(node, dict) or "serialization" in node:
        return node
    if isinstance(config := node.get("config"), dict):
        ours = everywhere or not OWN & config.keys()
    if node.get("type") == "bytes":
        return _as_base64(node) if ours else node
    parts = {}
    for key, part in node.items():
        if key in _NAMED and isinstance(part, dict):
            named = {name: _change(one, ours, everywhere) for name, one in part.items()}
            parts[key] = (
                named if any(one is not part[name] for name, one in named.items()) else part
            )
        elif key not in _NO_SCHEMAS:
            parts[key] = _change(part, ours, everywhere)
    return {**node, **parts} if any(part is not node[key] for key, part in parts.items()) else node


def below(schema: Schema) -> list[Schema]:
    """Return the schemas in a schema, and lists of them."""
    if not isinstance(schema, dict):
        return list(schema) if isinstance(schema, (list, tuple)) else []
    below: list[Schema] = []
    for key, part in schema.items():
        if key in _NAMED and isinstance(part, dict):
            below += part.values()
        elif key not in _NO_SCHEMAS:
            below.append(part)
    return below


def _classes(schema: Schema) -> Iterator[Any]:
    if isinstance(schema, dict) and isinstance(schema.get("cls"), type):
        yield schema["cls"]
    for part in below(schema):
        yield from _classes(part)


def _as_base64(node: dict[str, Schema]) -> dict[str, Schema]:
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


def _decode(value: object) -> Any:
    from pydantic_core import PydanticCustomError

    if type(value) is not str:
        return value
    try:
        if len(value) % 4:  # one padding character too many is none of its errors
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
