"""Adds the formats of dates and times to schemas, and which durations there are.

msgspec leaves the `format` of dates and times out where a type takes values without a time zone
too; generators of clients would make text of these. So it is put in again where it belongs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

Json = dict[str, Any]  # an object of JSON; msgspec and pydantic have this type for a schema too
_FORMATS = {msgspec.inspect.DateTimeType: "date-time", msgspec.inspect.TimeType: "time"}
WithFields = (
    msgspec.inspect.StructType
    | msgspec.inspect.TypedDictType
    | msgspec.inspect.NamedTupleType
    | msgspec.inspect.DataclassType
)
# What msgspec takes of the format `duration`, which has years, months and weeks too. (It takes a
# fraction of what comes last, whatever that is; it writes seconds.)
_DURATION = "^[+-]?P(?:[0-9]+D)?(?:T(?:[0-9]+H)?(?:[0-9]+M)?(?:[0-9]+(?:[.][0-9]+)?S)?)?$"
_PREFIX = "#/components/schemas/"


def add_formats(schema: Json, info: msgspec.inspect.Type, components: Json) -> None:
    """Add formats to a schema in place.

    Args:
        schema: what msgspec says of a type.
        info: what it knows of that type.
        components: the schemas that the first refers to.
    """
    _Walk(components).visit(schema, info)


class _Walk:
    """Walks a schema and the type that it is of, side by side."""

    def __init__(self, components: Json) -> None:
        self.components = components
        self.seen: set[str] = set()

    def visit(self, schema: object, info: msgspec.inspect.Type) -> None:
        """Add the formats of one type, and of what is in it."""
        inspect = msgspec.inspect
        if not isinstance(schema, dict):
            return
        if isinstance(info, inspect.Metadata):
            self.visit(schema, info.type)
        elif type(info) in _FORMATS and schema.get("type") == "string":
            schema.setdefault("format", _FORMATS[type(info)])
        elif isinstance(info, inspect.TimeDeltaType) and schema.get("format") == "duration":
            schema.setdefault("pattern", _DURATION)
        elif isinstance(info, inspect.UnionType):
            self._union(schema, info)
        elif isinstance(info, (inspect.CollectionType, inspect.VarTupleType)):
            self.visit(schema.get("items"), info.item_type)
        elif isinstance(info, inspect.TupleType):
            self._each(schema.get("prefixItems"), info.item_types)
        elif isinstance(info, inspect.DictType):
            self.visit(schema.get("additionalProperties"), info.value_type)
            self.visit(schema.get("propertyNames"), info.key_type)
        elif isinstance(info, WithFields):
            self._fields(schema, info)

    def _union(self, schema: Json, info: msgspec.inspect.UnionType) -> None:
        # A union has at most one type that is text in JSON, one that is an array, and one that is
        # an object.
        for choice in schema.get("anyOf", ()):
            for each in info.types:
                inner = each.type if isinstance(each, msgspec.inspect.Metadata) else each
                if _may_be(choice, inner):
                    self.visit(choice, inner)

    def _each(self, schemas: object, infos: Iterable[msgspec.inspect.Type]) -> None:
        if not isinstance(schemas, (list, tuple)):
            return
        for schema, info in zip(schemas, infos, strict=False):
            self.visit(schema, info)

    def _fields(self, schema: Json, info: WithFields) -> None:
        name = schema.get("$ref", "").removeprefix(_PREFIX)
        if name in self.seen or name not in self.components:
            return
        self.seen.add(name)
        component = self.components[name]
        properties = component.get("properties", {})
        self._each(component.get("prefixItems"), [field.type for field in info.fields])
        for field in info.fields:
            self.visit(properties.get(field.encode_name), field.type)


def _may_be(schema: Json, info: msgspec.inspect.Type) -> bool:
    """Return whether a choice of a union may be this type's."""
    inspect = msgspec.inspect
    if type(info) in _FORMATS:
        return (
            schema.get("type") == "string"
            and not {"format", "enum", "contentEncoding"} & schema.keys()
        )
    if isinstance(info, inspect.TimeDeltaType):
        return schema.get("format") == "duration"
    if isinstance(info, (inspect.CollectionType, inspect.VarTupleType, inspect.TupleType)):
        return schema.get("type") == "array"
    if isinstance(info, inspect.DictType):
        return schema.get("type") == "object"
    if not isinstance(info, WithFields):
        return False
    name: str = schema.get("$ref", "").removeprefix(_PREFIX)
    return name.startswith(info.cls.__name__)
