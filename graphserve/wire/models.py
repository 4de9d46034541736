"""Values of pydantic's types: to JSON and back. pydantic is imported only once the user's own code has."""

from __future__ import annotations

import sys
from typing import Any, cast


class Adapter:
    """Validates and dumps one type that contains pydantic's.

    Args:
        hint: the type.

    Raises:
        TypeError: pydantic has no schema for it.
    """

    def __init__(self, hint: Any) -> None:
        import pydantic

        try:
            self._adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(hint)
        except pydantic.PydanticSchemaGenerationError as exc:
            raise TypeError(str(exc).partition("\n")[0]) from None
        except pydantic.PydanticUserError as exc:
            raise TypeError(str(exc).partition("\n")[0]) from None

    def load(self, data: bytes | memoryview, by_name: bool = False) -> Any:
        """Validate JSON, strictly.

        Args:
            data: the JSON.
            by_name: whether fields may have their own names beside their aliases, as between nodes.

        Raises:
            pydantic.ValidationError: it does not fit.
        """
        return self._adapter.validate_json(
            bytes(data), strict=True, by_name=True if by_name else None, by_alias=True if by_name else None
        )

    def dump(self, value: Any, by_alias: bool = False) -> bytes:
        """A value as JSON: with fields' own names and without computed ones, unless `by_alias` is set for the public.

        Raises:
            TypeError: the value is not of the type.
        """
        from pydantic_core import PydanticSerializationError

        try:
            return self._adapter.dump_json(value, by_alias=by_alias, round_trip=not by_alias, warnings="error")
        except PydanticSerializationError as exc:
            raise TypeError(str(exc)) from None

    def schema(self, template: str, output: bool) -> dict[str, Any]:
        """Its JSON schema, with its definitions under `$defs`."""
        return self._adapter.json_schema(ref_template=template, mode="serialization" if output else "validation")


def is_instance(value: Any) -> bool:
    """Whether `value` is an instance of a pydantic model."""
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and isinstance(value, pydantic.BaseModel)


def is_error(error: BaseException) -> bool:
    """Whether `error` is pydantic's."""
    core = sys.modules.get("pydantic_core")
    return core is not None and isinstance(error, core.ValidationError)


def dump(value: Any, by_alias: bool = False) -> bytes:
    """A model of any class as JSON."""
    return cast(bytes, type(value).__pydantic_serializer__.to_json(value, by_alias=by_alias, round_trip=not by_alias))


def problems(error: Any) -> list[dict[str, Any]]:
    """What pydantic found: one mapping an error, with `loc`, `msg` and `type`."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return [{"loc": list(each["loc"]), "msg": each["msg"], "type": each["type"]} for each in found]
