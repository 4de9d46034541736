"""Values of pydantic's types: to JSON and back. pydantic is imported only once the user's own code has."""

from __future__ import annotations

import binascii
import dataclasses
import re
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, cast

from graphserve.wire.costs.bounds import ERRORS_MADE, HASHED_BODY, HASHED_FEW
from graphserve.wire.costs.hash_spread import crowded
from graphserve.wire.costs.union_branching import Branching

_UNEXPECTED = re.compile(r"Expected `(?P<wanted>[^`]+)`.*?input_type=(?P<got>\w+)", re.DOTALL)

_TOO_MANY_TRIES = "it is nested too deeply for a union without a discriminator, of which each level tries all members"


class Adapter:
    """Validates and dumps one type that contains pydantic's.

    Bytes are base64 in its JSON. For the public, a model's own `ser_json_bytes` and `val_json_bytes` come first;
    between nodes, where any bytes must arrive, they do not count.

    Args:
        hint: the type.

    Raises:
        TypeError: pydantic has no schema for it, or one that no value from outside can fit.
    """

    def __init__(self, hint: Any) -> None:
        import pydantic

        try:
            self._adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(hint)
        except pydantic.PydanticSchemaGenerationError as exc:
            raise TypeError(str(exc).partition("\n")[0]) from None
        except pydantic.PydanticUserError as exc:
            raise TypeError(str(exc).partition("\n")[0]) from None
        self._public, self._inner = _ways(self._adapter)
        self._model = _model(hint)
        self._guarded = self._public[0]
        if schema_is_keyed(self._adapter.core_schema):
            schema = self._adapter.core_schema
            self._guarded = build(guarded(with_base64(schema, False)), _config(schema))[0]
        self._branching = Branching.of(self._adapter.core_schema)

    @property
    def core_schema(self) -> Any:
        """pydantic's own description of the type."""
        return self._adapter.core_schema

    @property
    def plain_bytes(self) -> bool:
        """Whether values are bytes as they are, which pydantic only checks."""
        schema: Any = self._adapter.core_schema
        return schema["type"] == "bytes" and "serialization" not in schema

    def check(self, value: Any) -> Any:
        """Validate a value that is one of Python's already.

        Raises:
            pydantic.ValidationError: it does not fit.
        """
        return self._adapter.validate_python(value, strict=True)

    def load(self, data: bytes | memoryview, by_name: bool = False) -> Any:
        """Validate JSON, strictly.

        Args:
            data: the JSON.
            by_name: whether fields may have their own names beside their aliases, as between nodes.

        Raises:
            pydantic.ValidationError: it does not fit.
            Misfit: its values would be tried too often; only without `by_name`.
        """
        if by_name:
            return self._inner[0].validate_json(bytes(data), strict=True, by_name=True, by_alias=True)
        data = bytes(data)
        if self._branching is not None and self._branching.is_too_much(data):
            from graphserve.wire.validation_errors import Misfit  # which imports this module

            raise Misfit(_TOO_MANY_TRIES, "value_error")
        validator = self._guarded if len(data) > HASHED_BODY else self._public[0]
        return validator.validate_json(data, strict=True)

    def dump(self, value: Any, by_alias: bool = False) -> bytes:
        """A value as JSON, as the function `dump` writes a model.

        Raises:
            TypeError: the value is not of the type.
            pydantic.ValidationError: the same, in pydantic's words.
        """
        return cast(bytes, self._checked(value, lambda: self.write(value, by_alias, warnings="error")))

    def plain(self, value: Any, *, for_input: bool = False) -> Any:
        """A value as plain dicts, lists, strings and numbers for everybody: what its JSON says, but NaN stays NaN.

        Args:
            value: the value.
            for_input: whether it is written as validation reads it; otherwise as results are shown.

        Raises:
            TypeError: the value is not of the type.
            pydantic.ValidationError: the same, in pydantic's words.
        """
        return self._checked(value, lambda: self.write_plain(value, for_input, warnings="error"))

    def _checked(self, value: Any, write: Callable[[], Any]) -> Any:
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

    def write(self, value: Any, by_alias: bool, **options: Any) -> bytes:
        """A value as JSON, whatever type it has."""
        serializer = (self._public if by_alias else self._inner)[1]
        if by_alias:
            return cast(bytes, serializer.to_json(value, by_alias=True, **options))
        data = serializer.to_json(value, by_alias=False, round_trip=True, **options)
        if b"null" not in data:
            return cast(bytes, data)
        # Perhaps a null that was NaN or infinity: models write these so, whatever their serializer is told.
        import pydantic_core

        plain = serializer.to_python(value, mode="json", by_alias=False, round_trip=True, **options)
        return pydantic_core.to_json(plain, inf_nan_mode="constants")

    def write_plain(self, value: Any, for_input: bool, **options: Any) -> Any:
        """A value as `plain` writes it, whatever type it has."""
        serializer = self._public[1]
        if not for_input:
            return serializer.to_python(value, mode="json", by_alias=True, **options)
        tree = serializer.to_python(value, mode="json", by_alias=False, round_trip=True, **options)
        return _as_read(value, tree)

    def schema(self, template: str, output: bool) -> dict[str, Any]:
        """Its JSON schema, with its definitions under `$defs`; a model is one of these, not written out."""
        mode: Any = "serialization" if output else "validation"
        generator = _generator()(by_alias=True, ref_template=template)
        schemas, definitions = generator.generate_definitions([(0, mode, self._adapter.core_schema)])
        return {**schemas[0, mode], **({"$defs": definitions} if definitions else {})}


def is_keyed(hint: Any) -> bool:
    """Whether values of a type of pydantic's have sets, or dicts whose keys may be anything but text."""
    return schema_is_keyed(_of(hint).core_schema)


def is_instance(value: Any) -> bool:
    """Whether `value` is an instance of a pydantic model."""
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and isinstance(value, pydantic.BaseModel)


def is_error(error: BaseException) -> bool:
    """Whether `error` is pydantic's."""
    core = sys.modules.get("pydantic_core")
    return core is not None and isinstance(error, core.ValidationError)


def dump(value: Any, by_alias: bool = False) -> bytes:
    """A model of any class as JSON.

    Args:
        value: the model.
        by_alias: True writes for the public: with aliases and computed fields, NaN as null. False writes for
            another node, which gets an equal value: with the fields' own names, NaN as NaN.
    """
    return _of(cast(Any, type(value))).write(value, by_alias)


def plain(value: Any, for_input: bool) -> Any:
    """A model of any class as `Adapter.plain` writes it."""
    return _of(cast(Any, type(value))).write_plain(value, for_input)


def problems(error: Any) -> list[dict[str, Any]]:
    """What pydantic found: one mapping an error, with `loc`, `msg` and `type`; of very many, how many there are."""
    if (number := error.error_count()) > ERRORS_MADE:
        return [{"loc": [], "msg": f"{number:,} values do not fit", "type": "value_error"}]
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return [{"loc": list(each["loc"]), "msg": each["msg"], "type": each["type"]} for each in found]


@lru_cache(maxsize=1024)
def _of(kind: Any) -> Adapter:
    return Adapter(kind)


def _as_read(value: Any, tree: Any) -> Any:
    """A value that was written with the names of its fields, with the names that validation takes.

    A part that a serializer of its own made into something else stays as it is.
    """
    fields = getattr(type(value), "__pydantic_fields__", None)
    if fields is not None and getattr(type(value), "__pydantic_root_model__", False):
        return _as_read(value.root, tree)
    if fields is not None and type(tree) is dict:
        config = getattr(type(value), "model_config", None) or getattr(type(value), "__pydantic_config__", None) or {}
        read: dict[Any, Any] = {}
        for name, part in tree.items():
            path = (name,) if name not in fields else _path(name, fields[name], config)
            place = read
            for step in path[:-1]:
                place = place.setdefault(step, {})
            place[path[-1]] = _as_read(getattr(value, name, None), part)
        return read
    if dataclasses.is_dataclass(value) and type(tree) is dict:
        return {name: _as_read(getattr(value, name, None), part) for name, part in tree.items()}
    if isinstance(value, dict) and type(tree) is dict and len(value) == len(tree):
        return {key: _as_read(part, tree[key]) for (key, part) in zip(tree, value.values(), strict=True)}
    if isinstance(value, (list, tuple, set, frozenset)) and type(tree) is list and len(value) == len(tree):
        return [_as_read(part, written) for part, written in zip(value, tree, strict=True)]
    return tree


def _path(name: str, field: Any, config: Any) -> tuple[str, ...]:
    """Where validation looks for a field: its name, its alias, or a path of keys."""
    alias = field.validation_alias
    if alias is None or config.get("validate_by_alias") is False:
        return (name,)
    ways = getattr(alias, "choices", None) or [alias]
    for way in ways:
        steps = tuple(getattr(way, "path", None) or [way])
        if all(isinstance(step, str) for step in steps):
            return steps
    return (name,)


def _model(hint: Any) -> type | None:
    # A generic model with other parameters than the hint's is written by its fields, as pydantic does it.
    import pydantic

    if not isinstance(hint, type) or not issubclass(hint, pydantic.BaseModel):
        return None
    return cast(type, hint.__pydantic_generic_metadata__["origin"] or hint)


def _ways(adapter: Any) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """A validator and a serializer for the public, and both for nodes: pydantic's own where there are no bytes."""
    schema = adapter.core_schema
    if (kind := misplaced(schema)) is not None:
        raise TypeError(
            f"{kind.__module__}.{kind.__name__} is no type that pydantic can read from JSON, so a model with a field "
            "of it cannot be sent: make it a dataclass or a msgspec.Struct (arrays can be fields of these)"
        )
    own = (adapter.validator, adapter.serializer)
    config = _config(schema)
    public, inner = (_way(schema, config, everywhere, own) for everywhere in (False, True))
    return public, inner


def _way(schema: Any, config: dict[str, Any], everywhere: bool, own: tuple[Any, Any]) -> tuple[Any, Any]:
    changed = with_base64(schema, everywhere)
    untyped = holds_any(schema) and (everywhere or not OWN & config.keys())
    if changed is schema and not untyped:
        return own
    if untyped:
        config = {**config, "ser_json_bytes": "base64"}  # of what no type says that it is bytes
    return build(changed, config)


def _config(schema: Any) -> dict[str, Any]:
    """The configuration of the class at the root of a schema."""
    if schema["type"] == "definitions":
        inner = schema["schema"]
        if inner["type"] == "definition-ref":
            inner = next(each for each in schema["definitions"] if each.get("ref") == inner["schema_ref"])
        schema = inner
    return dict(schema.get("config") or {})


@lru_cache(maxsize=1)
def _generator() -> Any:
    from pydantic.json_schema import GenerateJsonSchema

    class Generator(GenerateJsonSchema):
        def bytes_schema(self, schema: Any) -> dict[str, Any]:
            said = super().bytes_schema(schema)
            if OWN & self._config.config_dict.keys():
                return said
            for bound in ("minLength", "maxLength"):
                if bound in said:
                    said[bound] = 4 * -(-said[bound] // 3)
            said.pop("format", None)
            return {**said, "contentEncoding": "base64"}

    return Generator


# --- Bytes in pydantic's types: base64 in JSON, where pydantic itself would read and write UTF-8 ---
# It changes the schema from which pydantic makes a validator and a serializer, a copy of it: the user's classes stay
# as they are. A part that has a serializer of its own keeps its JSON.


OWN = frozenset({"ser_json_bytes", "val_json_bytes"})  # with one of these a model says itself what its JSON is
_NO_SCHEMAS = frozenset({"cls", "config", "default", "expected", "function", "members", "metadata", "serialization"})
_NAMED = frozenset({"fields", "choices"})  # what these hold goes by names that the user gave
_STRING = {"type": "str"}
# What a client cannot choose the hashes of.
_SAFE = frozenset({"str", "bytes", "bool", "none", "date", "literal", "enum"})


def with_base64(schema: Any, everywhere: bool) -> Any:
    """A schema of pydantic's whose bytes are base64 in JSON; `schema` itself if it has none.

    Args:
        schema: the schema.
        everywhere: whether models that say themselves how bytes look in JSON are not asked, as between nodes.
    """
    return _change(schema, True, everywhere)


def build(schema: Any, config: Any) -> tuple[Any, Any]:
    """A validator and a serializer of a changed schema.

    pydantic would take those that the classes in it have already. Before 2.13 it has no switch for that, but a class
    that is not complete has none to take.
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
        return pydantic_core.SchemaValidator(schema, config), pydantic_core.SchemaSerializer(schema, config)
    finally:
        for cls in classes:
            cls.__pydantic_complete__ = True


def guarded(schema: Any) -> Any:
    """A schema of pydantic's that makes a set, or a dict, only of what has hashes that are spread.

    pydantic validates each element and each key, and puts it in a holder that no client can choose the hash of. Only
    when the hashes of all are known to be spread, they are taken out.
    """
    if isinstance(schema, (list, tuple)):
        return type(schema)(guarded(part) for part in schema)
    if not isinstance(schema, dict):
        return schema
    parts: dict[str, Any] = {}
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
        return _unheld({**parts, "items_schema": _held(items)}, _KINDS[kind], {"items_schema": {"type": "any"}})
    if kind == "dict" and parts.get("keys_schema", {"type": "any"}).get("type") not in _SAFE | {"any"}:
        parts = {**parts, "keys_schema": _held(parts["keys_schema"])}
        return _unheld(parts, _spread_dict, {"keys_schema": {"type": "any"}, "values_schema": {"type": "any"}})
    return parts


def _held(schema: Any) -> Any:
    return {"type": "function-after", "function": {"type": "no-info", "function": _Held}, "schema": schema}


def _unheld(schema: dict[str, Any], take_out: Any, inner: Any) -> Any:
    bounds = {key: schema[key] for key in ("min_length", "max_length") if key in schema}
    plain = {key: part for key, part in schema.items() if key not in ("min_length", "max_length", "ref")}
    changed: dict[str, Any] = {
        "type": "function-after", "function": {"type": "no-info", "function": take_out}, "schema": plain,
    }  # fmt: skip
    if bounds:  # pydantic makes another one then, in the order of this one
        steps = [changed, {"type": schema["type"], **inner, **bounds}]
        if take_out is not _spread_dict:
            again = {"type": "function-after", "function": {"type": "no-info", "function": _spread_again}}
            steps.insert(1, {**again, "schema": {"type": "any"}})
        changed = {"type": "chain", "steps": steps}
    return {**changed, "ref": schema["ref"]} if "ref" in schema else changed


class _Held:
    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


def _spread_set(held: Any) -> Any:
    return set(_spread([each.value for each in held], True))


def _spread_frozenset(held: Any) -> Any:
    return frozenset(_spread([each.value for each in held], True))


def _spread_again(made: Any) -> Any:
    _spread(list(made), True)
    return made


def _spread_dict(held: Any) -> Any:
    return dict(zip(_spread([each.value for each in held], False), held.values(), strict=True))


_KINDS = {"set": _spread_set, "frozenset": _spread_frozenset}


def _spread(values: list[Any], is_set: bool) -> list[Any]:
    from pydantic_core import PydanticCustomError

    if len(values) > HASHED_FEW and (said := crowded(values, is_set)) is not None:
        raise PydanticCustomError("value_error", said)
    return values


def holds_any(schema: Any) -> bool:
    """Whether a part of it may be anything, bytes too."""
    return (isinstance(schema, dict) and schema.get("type") == "any") or any(map(holds_any, below(schema)))


def schema_is_keyed(schema: Any) -> bool:
    """Whether a part of it is a set, or a dict whose keys may be anything but text."""
    if isinstance(schema, dict):
        kind = schema.get("type")
        if kind in ("set", "frozenset"):
            return True
        if kind == "dict" and schema.get("keys_schema", {}).get("type") != "str":
            return True
    return any(map(schema_is_keyed, below(schema)))


def misplaced(schema: Any) -> type | None:
    """A class that is no type of pydantic's where a value is needed: what has it can come from no JSON."""
    if isinstance(schema, dict) and ("serialization" in schema or schema.get("serialization_exclude")):
        return None
    kind = schema.get("type") if isinstance(schema, dict) else None
    if kind == "is-instance":
        return schema["cls"] if isinstance(schema["cls"], type) else None
    if kind == "json-or-python":
        return misplaced(schema["json_schema"])
    if kind == "lax-or-strict":
        return misplaced(schema["strict_schema"])
    if kind in ("default", "union", "tagged-union", "function-before", "function-wrap", "function-plain", "chain"):
        return None  # there may be another way
    return next((found for part in below(schema) if (found := misplaced(part)) is not None), None)


def _change(node: Any, ours: bool, everywhere: bool) -> Any:
    if isinstance(node, (list, tuple)):
        changed = [_change(part, ours, everywhere) for part in node]
        return type(node)(changed) if any(new is not old for new, old in zip(changed, node, strict=True)) else node
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
            parts[key] = named if any(one is not part[name] for name, one in named.items()) else part
        elif key not in _NO_SCHEMAS:
            parts[key] = _change(part, ours, everywhere)
    return {**node, **parts} if any(part is not node[key] for key, part in parts.items()) else node


def below(schema: Any) -> list[Any]:
    """The schemas in a schema, and lists of them."""
    if not isinstance(schema, dict):
        return list(schema) if isinstance(schema, (list, tuple)) else []
    below: list[Any] = []
    for key, part in schema.items():
        if key in _NAMED and isinstance(part, dict):
            below += part.values()
        elif key not in _NO_SCHEMAS:
            below.append(part)
    return below


def _classes(schema: Any) -> Iterator[Any]:
    if isinstance(schema, dict) and isinstance(schema.get("cls"), type):
        yield schema["cls"]
    for part in below(schema):
        yield from _classes(part)


def _as_base64(node: dict[str, Any]) -> dict[str, Any]:
    return {
        **({"ref": node["ref"]} if "ref" in node else {}),
        "type": "function-before",
        "function": {"type": "no-info", "function": _decode},
        "schema": {key: value for key, value in node.items() if key != "ref"},
        "serialization": {"type": "function-plain", "function": _encode, "when_used": "json", "return_schema": _STRING},
    }


def _decode(value: Any) -> Any:
    from pydantic_core import PydanticCustomError

    if type(value) is not str:
        return value
    try:
        if len(value) % 4:  # one padding character too many is none of its errors
            raise ValueError(value)
        return binascii.a2b_base64(value, strict_mode=True)
    except ValueError:
        raise PydanticCustomError("bytes_invalid_encoding", "Input should be bytes in base64") from None


def _encode(value: Any) -> str:
    from pydantic_core import PydanticSerializationUnexpectedValue

    if not isinstance(value, (bytes, bytearray)):
        raise PydanticSerializationUnexpectedValue(f"Expected `bytes` [input_type={type(value).__name__}]")
    return binascii.b2a_base64(value, newline=False).decode("ascii")
