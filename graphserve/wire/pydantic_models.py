"""Turns values of pydantic's types into JSON and back. pydantic is imported only once the user's
own code has.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache
from operator import attrgetter
from typing import TYPE_CHECKING, Literal, TypeGuard, TypeVar, cast

from graphserve.wire.costs.bounds import ERRORS_MADE, HASHED_BODY
from graphserve.wire.costs.union_branching import Branching
from graphserve.wire.exceptions import ErrorDetail, Misfit
from graphserve.wire.pydantic_schemas import (
    OWN,
    Schema,
    SchemaPart,
    build,
    guarded,
    holds_any,
    misplaced,
    schema_is_keyed,
    with_base64,
)
from graphserve.wire.type_hints import Hint

if TYPE_CHECKING:
    from pydantic import BaseModel, TypeAdapter
    from pydantic.fields import FieldInfo
    from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue
    from pydantic_core import CoreConfig, ValidationError
    from pydantic_core.core_schema import BytesSchema

    from graphserve.wire.pydantic_schemas import Way

T = TypeVar("T")
Warnings = Literal["warn", "error"]  # what becomes of a value that a serializer does not expect

_UNEXPECTED = re.compile(r"Expected `(?P<wanted>[^`]+)`.*?input_type=(?P<got>\w+)", re.DOTALL)

_root_of = attrgetter("root")

_TOO_MANY_TRIES = (
    "it is nested too deeply for a union without a discriminator, of which each level tries all"
    " members"
)


class Adapter:
    """Validates and dumps one type that contains pydantic's.

    Bytes are base64 in its JSON. For the public, a model's own `ser_json_bytes` and
    `val_json_bytes` come first; between nodes, where any bytes must arrive, they do not count.

    Args:
        hint: the type.

    Raises:
        TypeError: pydantic has no schema for it, or one that no value from outside can fit.
    """

    def __init__(self, hint: Hint) -> None:
        import pydantic

        try:
            # (what is none of Python's types it refuses itself)
            self._adapter: TypeAdapter[object] = pydantic.TypeAdapter(hint)  # type: ignore[arg-type]
        except pydantic.PydanticSchemaGenerationError as exc:
            raise TypeError(str(exc).partition("\n")[0]) from None
        except pydantic.PydanticUserError as exc:
            raise TypeError(str(exc).partition("\n")[0]) from None
        public, inner = _ways(self._adapter)
        self._public = public
        self._inner = inner
        self._model = _model(hint)
        self._guarded = self._public[0]
        if schema_is_keyed(self._adapter.core_schema):
            schema: Schema = self._adapter.core_schema
            self._guarded = build(guarded(with_base64(schema, False)), _config(schema))[0]
        self._branching = Branching.of(self._adapter.core_schema)

    @property
    def core_schema(self) -> Schema:
        """The schema that pydantic itself has of the type."""
        schema: Schema = self._adapter.core_schema
        return schema

    @property
    def plain_bytes(self) -> bool:
        """Tell whether values are bytes as they are, which pydantic only checks."""
        schema: Schema = self._adapter.core_schema
        return schema["type"] == "bytes" and "serialization" not in schema

    def check(self, value: object) -> object:
        """Validate a value that is one of Python's already.

        Raises:
            pydantic.ValidationError: it does not fit.
        """
        return self._adapter.validate_python(value, strict=True)

    def load(self, data: bytes | memoryview, by_name: bool = False) -> object:
        """Validate JSON, strictly.

        Args:
            data: the JSON.
            by_name: whether fields may have their own names beside their aliases, as between nodes.

        Raises:
            pydantic.ValidationError: it does not fit.
            Misfit: its values would be tried too often; only without `by_name`.
        """
        if by_name:
            return self._inner[0].validate_json(
                bytes(data), strict=True, by_name=True, by_alias=True
            )
        data = bytes(data)
        if self._branching is not None and self._branching.is_too_much(data):
            raise Misfit(_TOO_MANY_TRIES, "value_error")
        validator = self._guarded if len(data) > HASHED_BODY else self._public[0]
        return validator.validate_json(data, strict=True)

    def dump(self, value: object, by_alias: bool = False) -> bytes:
        """Return a value as JSON, as the function `dump` writes a model.

        Raises:
            TypeError: the value is not of the type.
            pydantic.ValidationError: the same, in pydantic's words.
        """
        return self._checked(value, lambda: self.write(value, by_alias, "error"))

    def plain(self, value: object, *, for_input: bool = False) -> object:
        """Return a value as plain dicts, lists, strings and numbers for everybody: what its JSON
        says, but NaN stays NaN.

        Args:
            value: the value.
            for_input: whether it is written as validation reads it; otherwise as results are shown.

        Raises:
            TypeError: the value is not of the type.
            pydantic.ValidationError: the same, in pydantic's words.
        """
        return self._checked(value, lambda: self.write_plain(value, for_input, "error"))

    def _checked(self, value: object, write: Callable[[], T]) -> T:
        from pydantic_core import PydanticSerializationError

        if self._model is not None and not isinstance(value, self._model):
            raise TypeError(f"Expected `{self._model.__name__}`, got `{type(value).__name__}`")
        try:
            return write()
        except PydanticSerializationError as exc:
            reason = str(exc)
        self.check(value)  # says what a receiver would say
        if found := _UNEXPECTED.search(reason):
            raise TypeError(f"Expected `{found['wanted']}`, got `{found['got']}`")
        raise TypeError(" ".join(reason.removeprefix("Pydantic serializer warnings:").split()))

    def write(self, value: object, by_alias: bool, warnings: Warnings = "warn") -> bytes:
        """Return a value as JSON, whatever type it has."""
        serializer = (self._public if by_alias else self._inner)[1]
        if by_alias:
            return serializer.to_json(value, by_alias=True, warnings=warnings)
        data = serializer.to_json(value, by_alias=False, round_trip=True, warnings=warnings)
        if b"null" not in data:
            return data
        # Perhaps a null that was NaN or infinity: models write these so, whatever their serializer
        # is told.
        import pydantic_core

        plain = serializer.to_python(
            value, mode="json", by_alias=False, round_trip=True, warnings=warnings
        )
        return pydantic_core.to_json(plain, inf_nan_mode="constants")

    def write_plain(self, value: object, for_input: bool, warnings: Warnings = "warn") -> object:
        """Return a value as `plain` writes it, whatever type it has."""
        serializer = self._public[1]
        if not for_input:
            return serializer.to_python(value, mode="json", by_alias=True, warnings=warnings)
        tree = serializer.to_python(
            value, mode="json", by_alias=False, round_trip=True, warnings=warnings
        )
        return _as_read(value, tree)

    def schema(self, template: str, output: bool) -> JsonSchemaValue:
        """Return its JSON schema, with its definitions under `$defs`; a model is one of these, not
        written out.
        """
        mode: JsonSchemaMode = "serialization" if output else "validation"
        generator = _generator()(by_alias=True, ref_template=template)
        schemas, definitions = generator.generate_definitions(
            [(0, mode, self._adapter.core_schema)]
        )
        return {**schemas[0, mode], **({"$defs": definitions} if definitions else {})}


def is_instance(value: object) -> TypeGuard[BaseModel]:
    """Return whether `value` is an instance of a pydantic model."""
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and isinstance(value, pydantic.BaseModel)


def is_error(error: BaseException) -> TypeGuard[ValidationError]:
    """Return whether `error` is pydantic's."""
    core = sys.modules.get("pydantic_core")
    return core is not None and isinstance(error, core.ValidationError)


def dump(value: object, by_alias: bool = False) -> bytes:
    """Return a model of any class as JSON.

    Args:
        value: the model.
        by_alias: True writes for the public: with aliases and computed fields, NaN as null. False
            writes for another node, which gets an equal value: with the fields' own names, NaN as
            NaN.
    """
    kind: Hint = type(value)
    return _of(kind).write(value, by_alias)


def plain(value: object, for_input: bool) -> object:
    """Return a model of any class as `Adapter.plain` writes it."""
    kind: Hint = type(value)
    return _of(kind).write_plain(value, for_input)


def problems(error: ValidationError) -> list[ErrorDetail]:
    """Return what pydantic found: one mapping an error, with `loc`, `msg` and `type`; of very many,
    how many there are.
    """
    if (number := error.error_count()) > ERRORS_MADE:
        return [{"loc": [], "msg": f"{number:,} values do not fit", "type": "value_error"}]
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return [{"loc": list(each["loc"]), "msg": each["msg"], "type": each["type"]} for each in found]


@lru_cache(maxsize=1024)
def _of(kind: Hint) -> Adapter:
    return Adapter(kind)


def _as_read(value: object, tree: object) -> object:
    """Return a value that was written with the names of its fields, with the names that validation
    takes.

    A part that a serializer of its own made into something else stays as it is.
    """
    fields = getattr(type(value), "__pydantic_fields__", None)
    if fields is not None and getattr(type(value), "__pydantic_root_model__", False):
        return _as_read(_root_of(value), tree)
    if fields is not None and type(tree) is dict:
        config = (
            getattr(type(value), "model_config", None)
            or getattr(type(value), "__pydantic_config__", None)
            or {}
        )
        read: dict[str, object] = {}
        for name, part in tree.items():
            path = (name,) if name not in fields else _path(name, fields[name], config)
            place = read
            for step in path[:-1]:
                inner = place.setdefault(step, {})
                assert isinstance(inner, dict)
                place = inner
            place[path[-1]] = _as_read(getattr(value, name, None), part)
        return read
    if dataclasses.is_dataclass(value) and type(tree) is dict:
        return {name: _as_read(getattr(value, name, None), part) for name, part in tree.items()}
    if isinstance(value, dict) and type(tree) is dict and len(value) == len(tree):
        return {
            key: _as_read(part, tree[key]) for (key, part) in zip(tree, value.values(), strict=True)
        }
    if (
        isinstance(value, (list, tuple, set, frozenset))
        and type(tree) is list
        and len(value) == len(tree)
    ):
        return [_as_read(part, written) for part, written in zip(value, tree, strict=True)]
    return tree


def _path(name: str, field: FieldInfo, config: Mapping[str, object]) -> tuple[str, ...]:
    """Return where validation looks for a field: its name, its alias, or a path of keys."""
    alias = field.validation_alias
    if alias is None or config.get("validate_by_alias") is False:
        return (name,)
    ways = getattr(alias, "choices", None) or [alias]
    for way in ways:
        steps = tuple(getattr(way, "path", None) or [way])
        if all(isinstance(step, str) for step in steps):
            return steps
    return (name,)


def _model(hint: Hint) -> type | None:
    # A generic model with other parameters than the hint's is written by its fields, as pydantic
    # does it.
    import pydantic

    if not isinstance(hint, type) or not issubclass(hint, pydantic.BaseModel):
        return None
    return cast(type, hint.__pydantic_generic_metadata__["origin"] or hint)


def _ways(adapter: TypeAdapter[object]) -> tuple[Way, Way]:
    """Return a validator and a serializer for the public, and both for nodes: pydantic's own where
    there are no bytes.
    """
    schema: Schema = adapter.core_schema
    if (kind := misplaced(schema)) is not None:
        raise TypeError(
            f"{kind.__module__}.{kind.__name__} is no type that pydantic can read from JSON, so a"
            " model with a field of it cannot be sent: make it a dataclass or a msgspec.Struct"
            " (arrays can be fields of these)"
        )
    own: Way = (adapter.validator, adapter.serializer)  # type: ignore[assignment]  # (a plugin's wraps it, alike)
    config = _config(schema)
    public, inner = (_way(schema, config, everywhere, own) for everywhere in (False, True))
    return public, inner


def _way(schema: Schema, config: CoreConfig, everywhere: bool, own: Way) -> Way:
    changed = with_base64(schema, everywhere)
    untyped = holds_any(schema) and (everywhere or not OWN & config.keys())
    if changed is schema and not untyped:
        return own
    if untyped:
        config = {**config, "ser_json_bytes": "base64"}  # of what no type says that it is bytes
    return build(changed, config)


def _config(schema: Schema) -> CoreConfig:
    """Return the configuration of the class at the root of a schema."""
    root: SchemaPart = schema
    if isinstance(root, dict) and root["type"] == "definitions":
        definitions = root["definitions"]
        root = root["schema"]
        if isinstance(root, dict) and root["type"] == "definition-ref":
            wanted = root["schema_ref"]
            root = next(each for each in definitions if each.get("ref") == wanted)
    config: CoreConfig | None = root.get("config") if isinstance(root, dict) else None
    return {} if config is None else config


@lru_cache(maxsize=1)
def _generator() -> type[GenerateJsonSchema]:
    from pydantic.json_schema import GenerateJsonSchema

    class Generator(GenerateJsonSchema):
        def bytes_schema(self, schema: BytesSchema) -> JsonSchemaValue:
            said = super().bytes_schema(schema)
            if OWN & self._config.config_dict.keys():
                return said
            for bound in ("minLength", "maxLength"):
                if bound in said:
                    said[bound] = 4 * -(-said[bound] // 3)
            said.pop("format", None)
            return {**said, "contentEncoding": "base64"}

    return Generator
