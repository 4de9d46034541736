"""Takes fingerprints of signatures: they are equal as long as callers of the old code can call the
new. Runs in the resolver.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import re
from collections.abc import Iterable, Iterator

import msgspec

from graphserve.system import own_json
from graphserve.wire import pydantic_models, type_hints
from graphserve.wire.signature import Signature
from graphserve.wire.type_hints import Hint

ADDRESS = re.compile(r" at 0x[0-9a-f]+")  # in the repr of a function: another one in every process
DIGEST = 8  # bytes
LAYOUT = ("array_like", "tag", "tag_field", "forbid_unknown_fields")  # of a msgspec.Struct


def fingerprint(signature: Signature) -> str:
    """Return a digest of what crosses a socket in a call: parameters, result, and all that their
    types consist of.
    """
    lines = [
        f"{signature.stream} {signature.is_async} {signature.raw_body} {signature.input_stream}"
    ]
    for parameter in signature.parameters:
        lines += [f"{parameter.name} {parameter.required}", *_describe(parameter.type)]
    lines += ["->", *_describe(signature.item if signature.stream else signature.result)]
    return hashlib.blake2b(
        ADDRESS.sub("", "\n".join(lines)).encode(), digest_size=DIGEST
    ).hexdigest()


def _describe(hint: Hint) -> Iterator[str]:
    for part in type_hints.walk(hint):
        names = " ".join(f"{item.label}:{type_hints.name_of(item.hint)}" for item in part.items)
        yield f"{part.kind} {type_hints.name_of(part.hint)} {part.metadata} {names}"
        if isinstance(part.origin, enum.EnumMeta):
            members: Iterable[enum.Enum] = part.origin
            yield " ".join(f"{member.name}={member.value!r}" for member in members)
        elif part.kind == "fields":
            config = getattr(part.origin, "__struct_config__", None)
            layout = [getattr(config, name, None) for name in LAYOUT]
            yield f"{sorted(_optional(part.cls))} {layout}"
        elif part.kind == "model":
            yield from _model(part.hint)


def _optional(kind: type) -> set[str]:
    """Return the fields that need not be there."""
    if issubclass(kind, msgspec.Struct):
        return {field.name for field in msgspec.structs.fields(kind) if not field.required}
    if dataclasses.is_dataclass(kind):
        fields = dataclasses.fields(kind)
        missing = dataclasses.MISSING
        return {
            field.name
            for field in fields
            if (field.default, field.default_factory) != (missing, missing)
        }
    return {*getattr(kind, "__optional_keys__", ()), *getattr(kind, "_field_defaults", ())}


def _model(hint: Hint) -> Iterator[str]:
    # nodes write these names, and not the aliases of the schema
    yield " ".join(getattr(hint, "model_fields", ()))
    for output in (False, True):
        try:
            schema = pydantic_models.Adapter(hint).schema("{model}", output)
        except Exception:  # a type of pydantic's without a JSON schema: its name has to do
            continue
        yield own_json.dumps(schema, sort_keys=True, default=str)
