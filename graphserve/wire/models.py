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
        """A value as JSON, as the function `dump` writes a model.

        Raises:
            TypeError: the value is not of the type.
        """
        from pydantic_core import PydanticSerializationError

        try:
            return _write(self._adapter.serializer, value, by_alias, warnings="error")
        except PydanticSerializationError as exc:
            reason = str(exc).removeprefix("Pydantic serializer warnings:")
            raise TypeError(" ".join(reason.split())) from None

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
    """A model of any class as JSON.

    Args:
        value: the model.
        by_alias: True writes for the public: with aliases and computed fields, NaN as null. False writes for
            another node, which gets an equal value: with the fields' own names, NaN as NaN.
    """
    return _write(type(value).__pydantic_serializer__, value, by_alias)


def _write(serializer: Any, value: Any, by_alias: bool, **options: Any) -> bytes:
    if by_alias:
        return cast(bytes, serializer.to_json(value, by_alias=True, **options))
    data = serializer.to_json(value, by_alias=False, round_trip=True, **options)
    if b"null" not in data:
        return cast(bytes, data)
    # Perhaps a null that was NaN or infinity: models write these so, whatever their serializer is told.
    import pydantic_core

    plain = serializer.to_python(value, mode="json", by_alias=False, round_trip=True, **options)
    return pydantic_core.to_json(plain, inf_nan_mode="constants")


def problems(error: Any) -> list[dict[str, Any]]:
    """What pydantic found: one mapping an error, with `loc`, `msg` and `type`."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return [{"loc": list(each["loc"]), "msg": each["msg"], "type": each["type"]} for each in found]
