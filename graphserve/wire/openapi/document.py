"""Describes a service as an OpenAPI document: its operations, their parameters, bodies and answers.

Runs in a worker of the entry, once.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence

import msgspec

from graphserve.declare.declaration import ApiDeclaration
from graphserve.declare.routes import BODILESS
from graphserve.system import own_json
from graphserve.wire.extensions import json_hook
from graphserve.wire.formats import MULTIPART, PROBLEM, URLENCODED, Format, StreamFormat
from graphserve.wire.media.files import is_file, kind_in, kind_sent, kind_streamed
from graphserve.wire.media.multipart import is_installed
from graphserve.wire.media.octets import TEXT
from graphserve.wire.openapi.schemas import COMPONENTS, Schemas
from graphserve.wire.openapi.time_formats import Json
from graphserve.wire.signature import Parameter, Signature

_ERRORS = {
    400: "The body is not what its content type claims.",
    408: "The headers or the body came too slowly.",
    413: "The body is too large.",
    414: "The path and its query are too long.",
    415: "The content type is not supported.",
    422: "The arguments do not fit the signature; `errors` says where.",
    431: "The headers are too long, or too many.",
    500: "The API failed; the log has the reason, under `request_id`.",
    502: "A service that this one needs failed; `service` names it.",
    503: "A service that this one needs cannot take the call now.",
    504: "The deadline passed; `service` held the call.",
}
_OTHER = (
    "A problem that the API, or one that it called, answers with in words of its own; or no valid"
    " HTTP request."
)
_PROBLEM: Json = {
    "title": "Problem",
    "description": "An error (RFC 9457).",
    "type": "object",
    "required": ["type", "title", "status"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference", "default": "about:blank"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "service": {"type": "string", "description": "The deepest node concerned."},
        "request_id": {"type": "string"},
        "full": {
            "type": "boolean",
            "description": "There is too much to do; no service is failed.",
        },
        "quarantined": {
            "type": "boolean",
            "description": "This very call killed workers: it is refused for a while.",
        },
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["loc", "msg", "type"],
                "properties": {
                    "loc": {"type": "array", "items": {"type": ["string", "integer"]}},
                    "msg": {"type": "string"},
                    "type": {"type": "string"},
                },
            },
        },
    },
}
_HEALTH = {
    "/livez": ("livez", "Whether this process lives", "It lives.", None),
    "/readyz": (
        "readyz",
        "Whether this service and what it needs are ready",
        "Ready.",
        "Not ready: what is missing.",
    ),
}
_UNKNOWN = "#/components/responses/401"
_JSON = Format.JSON.value.decode()
_MSGPACK = Format.MSGPACK.value.decode()
_RAW = Format.RAW.value.decode()
_NDJSON = StreamFormat.NDJSON.value.decode()
_EVENTS = StreamFormat.EVENTS.value.decode()
_BESIDE = (
    "A body of any other content type is `{name}` itself; the other arguments are in the query"
    " then."
)

_IN_FRONT = "In a form, `{name}` is the last part; the arguments may be fields in front of it."


def document(
    name: str,
    doc: str | None,
    version: str,
    apis: Sequence[tuple[ApiDeclaration, Signature, str | None]],
) -> Json:
    """Describe a service as OpenAPI 3.1.

    Args:
        name: the service's name.
        doc: its docstring.
        version: the version of what it offers.
        apis: each API's declaration, signature and docstring.

    Returns:
        The document, as JSON values.
    """
    schemas = Schemas()
    # Arguments first: a type that is both has one component, and what may be left out of an
    # argument may be left out.
    begun = [
        (api, signature, method, _operation(api, signature, text, schemas, method))
        for api, signature, text in apis
        for method in api.methods
    ]
    paths: Json = {}
    for api, signature, method, operation in begun:
        paths.setdefault(api.route, {})[method.lower()] = operation | {
            "responses": _responses(signature, schemas)
        }
    for path, (name_of_check, summary, good, bad) in _HEALTH.items():
        responses: Json = {"200": {"description": good}} | ({"503": _problem(bad)} if bad else {})
        responses["default"] = {"$ref": "#/components/responses/default"}
        paths[path] = {
            "get": {
                "operationId": name_of_check,
                "summary": summary,
                "tags": ["health"],
                "responses": responses,
            }
        }
    return {
        "openapi": "3.1.0",
        "info": (
            {"title": name, "version": version}
            | ({"description": inspect.cleandoc(doc)} if doc else {})
        ),
        "servers": [{"url": "/"}],
        "tags": [{"name": "health", "description": "Whether the service runs."}],
        "paths": paths,
        "components": {
            "schemas": {"Problem": _PROBLEM} | schemas.components,
            "responses": {
                status: _problem(description) for status, description in _errors().items()
            },
        },
    }


def with_keys(document: Json) -> Json:
    """Return the description of a service whose clients need an API key, for all but health."""
    components = document["components"]
    said = {
        path: {
            method: operation
            if path in _HEALTH
            else operation | {"responses": {**operation["responses"], "401": {"$ref": _UNKNOWN}}}
            for method, operation in operations.items()
        }
        for path, operations in document["paths"].items()
    }
    for path in _HEALTH:
        said[path]["get"] = said[path]["get"] | {"security": []}
    schemes = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    responses = components["responses"] | {"401": _problem("The API key is missing, or not known.")}
    return document | {
        "security": [{name: []} for name in schemes],
        "paths": said,
        "components": components | {"responses": responses, "securitySchemes": schemes},
    }


def _operation(
    declaration: ApiDeclaration,
    signature: Signature,
    doc: str | None,
    schemas: Schemas,
    method: str,
) -> Json:
    text, described = _read_docstring(doc)
    summary, _, description = text.partition("\n\n")
    return {
        # each has one of its own, which is what generators of clients name their functions by
        "operationId": declaration.name
        if len(declaration.methods) == 1
        else f"{declaration.name}_{method.lower()}",
        "summary": " ".join(summary.split()) or declaration.name,
        **({"description": description.strip()} if description.strip() else {}),
        **_request(signature, described, schemas, method),
    }


def _responses(signature: Signature, schemas: Schemas) -> Json:
    what = "The results, one after the other." if signature.stream else "The result."
    return {
        "200": {"description": what, "content": _result(signature, schemas)},
        **{status: {"$ref": f"#/components/responses/{status}"} for status in _errors()},
    }


def _request(
    signature: Signature, described: dict[str, str], schemas: Schemas, method: str
) -> Json:
    in_url = [
        _url_parameter(parameter, described, schemas, signature)
        for parameter in signature.parameters
        if _is_in_url(parameter.name, signature, method)
    ]
    in_url_said: Json = {"parameters": in_url} if in_url else {}
    if method in BODILESS:
        return in_url_said
    if signature.input_stream:
        # Any type is taken; generators of clients know only this one. No body is an empty one.
        file = {"schema": _file(_RAW)}
        taken = {_RAW: file, "*/*": file}
        if (media := signature.input_media) is not None and media.media_types:
            taken = {each: {"schema": _file(each)} for each in media.media_types}
        body: Json = {"required": False, "content": taken}
        if MULTIPART in signature.forms and is_installed():
            # The arguments are in the query for every type, which generators of clients know.
            name = signature.input_stream
            types = media.media_types if media is not None and media.media_types else (_RAW,)
            form: Json = {"type": "object", "required": [name], "properties": {name: _file(*types)}}
            taken[MULTIPART] = {"schema": form}
            body["description"] = _IN_FRONT.format(name=name)
        return {"requestBody": body, **in_url_said}
    in_body = [p for p in signature.parameters if not _is_in_url(p.name, signature, method)]
    if signature.body is not None:
        schema = _property(in_body[0], described, schemas)
        required = [in_body[0].name] if in_body[0].required else []
    else:
        required = [parameter.name for parameter in in_body if parameter.required]
        schema = {
            "type": "object",
            "properties": {p.name: _property(p, described, schemas) for p in in_body},
            "additionalProperties": False,
        } | ({"required": required} if required else {})
        if not in_body and in_url:
            return in_url_said  # no body is an empty one
    # What is first, generators of clients take: files as they are, where there are some.
    content: Json = {}
    if signature.files and signature.body is None and is_installed():
        content |= {MULTIPART: _form(signature, in_body, schema, schemas.components, described)}
    said: Json = {}
    if signature.raw_body:
        (name,) = signature.files
        if set(required) <= {name}:
            (parameter,) = [p for p in signature.parameters if p.name == name]
            # (of bytes: as any other type that is none of these)
            content |= {each: {"schema": _file(each)} for each in _received(parameter)}
        if len(in_body) > 1:
            said["description"] = _BESIDE.format(name=name)
    content |= {_JSON: {"schema": schema}, _MSGPACK: {"schema": schema}}
    if URLENCODED in signature.forms:
        texts = {n: each for n, each in schema["properties"].items() if n not in signature.files}
        # (what is neither text nor a number would be JSON in a field, which few can send)
        if all(_is_written(each, schemas.components, True) for each in texts.values()):
            texts = {n: _field(each, n in required) for n, each in texts.items()}
            content[URLENCODED] = {"schema": {**schema, "properties": texts}}
    alone = signature.raw_body and [p.type for p in in_body] == [bytes]
    needed = bool(required) and not alone  # no body is an empty one
    return {"requestBody": {**said, "required": needed, "content": content}, **in_url_said}


def _form(
    signature: Signature,
    parameters: Sequence[Parameter],
    schema: Json,
    components: Json,
    described: dict[str, str],
) -> Json:
    """Return the arguments as a form has them: files and text as they are, lists as parts of one
    name, and what is neither text nor a number as JSON.
    """
    properties: Json = {}
    encoding: Json = {}
    for parameter in parameters:
        said = schema["properties"][parameter.name]
        about = _about(parameter, described)  # not what is said of its base64
        kept = {"description": about} if about else {}
        if parameter.name not in signature.files:
            if _is_written(said, components, True):
                said = _field(said, parameter.required)
            else:
                encoding[parameter.name] = {"contentType": _JSON}
            properties[parameter.name] = said
            continue
        types = _received(parameter)
        file = _file(*types)
        if parameter.media is not None and parameter.media.media_types:
            encoding[parameter.name] = {"contentType": ", ".join(types)}
        if not is_file(parameter.type):
            file = _repeated({"type": "array", "items": file}, parameter.required)
        properties[parameter.name] = file | kept
    form = {"schema": {**schema, "properties": properties}}
    return form | ({"encoding": encoding} if encoding else {})


def _is_in_url(name: str, signature: Signature, method: str) -> bool:
    # Beside a body that is a stream, all is in the query.
    if method in BODILESS or signature.body is not None or signature.input_stream:
        return name != signature.body
    return name in signature.in_path


def _url_parameter(
    parameter: Parameter, described: dict[str, str], schemas: Schemas, signature: Signature
) -> Json:
    schema = _property(parameter, described, schemas)
    if parameter.name in signature.in_path:
        return {"name": parameter.name, "in": "path", "required": True, "schema": schema}
    # Text and numbers are written as they are, which more generators of clients can do than JSON;
    # a list is its items, one after the other.
    plain = _is_written(schema, schemas.components, True)
    said: Json = {"content": {_JSON: {"schema": schema}}}
    if plain:
        said = {"schema": _repeated(schema, parameter.required)}
    return {"name": parameter.name, "in": "query", "required": parameter.required, **said}


def _repeated(schema: Json, required: bool) -> Json:
    """Return the schema of what comes item by item, each under the name of the list: of an empty
    one nothing comes, which is one that is missing.
    """
    if not required or schema.get("type") != "array":
        return schema
    return {**schema, "minItems": max(1, schema.get("minItems", 0))}


def _field(schema: Json, required: bool) -> Json:
    """Return the schema of a field of a form, which is text: none of it is null, though it may be
    left out.
    """
    choices = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    if choices == schema.get("anyOf", []):
        return _repeated(schema, required)
    rest = {
        name: each
        for name, each in schema.items()
        if name != "anyOf" and not (name == "default" and each is None)
    }
    return choices[0] | rest if len(choices) == 1 else {**rest, "anyOf": choices}


def _is_written(schema: Json, components: Json, lists: bool) -> bool:
    """Return whether the values of a schema are written in a query as they are."""
    if "$ref" in schema:
        schema = components.get(schema["$ref"].removeprefix(COMPONENTS), {})
    if choices := schema.get("anyOf"):
        return lists and all(_is_written(choice, components, lists) for choice in choices)
    if schema.get("type") == "array" and lists and isinstance(schema.get("items"), dict):
        return _is_written(schema["items"], components, False)
    return schema.get("type") in ("string", "integer", "number", "boolean") or (
        lists and schema.get("type") == "null"
    )


def _about(parameter: Parameter, described: dict[str, str]) -> str:
    """Return what a docstring says of a parameter, and how large its file may be."""
    text = described.get(parameter.name, "")
    if parameter.media is not None and parameter.media.max_size is not None:
        text = f"{text} At most {parameter.media.max_size:,} bytes.".lstrip()
    return text


def _property(parameter: Parameter, described: dict[str, str], schemas: Schemas) -> Json:
    schema = schemas.of(parameter.type, output=False)
    if text := _about(parameter, described):
        schema = {**schema, "description": f"{text} {schema.get('description', '')}".strip()}
    if not parameter.required:
        try:
            schema = {
                **schema,
                "default": own_json.loads(
                    msgspec.json.encode(parameter.default, enc_hook=json_hook)
                ),
            }
        except (TypeError, ValueError, OverflowError):
            pass  # a default that JSON cannot say is left out
    return schema


def _result(signature: Signature, schemas: Schemas) -> Json:
    schema = schemas.of(signature.item if signature.stream else signature.result, output=True)
    if signature.stream:
        lines = {_NDJSON: {"schema": _lines(schema)}, _EVENTS: {"schema": _events(schema)}}
        pieces = kind_streamed(signature.item, signature.media)
        if pieces is None:
            return lines
        said = signature.media.media_types if signature.media is not None else ()
        return {each: {"schema": _file(each)} for each in (*said, *pieces.offers)} | lines
    content: Json = {_JSON: {"schema": schema}, _MSGPACK: {"schema": schema}}
    kind = kind_sent(signature.result, signature.media)
    sent_as = signature.media.media_types if signature.media is not None else ()
    offers = {each: {"schema": _file(each)} for each in kind.offers} if kind is not None else {}
    if kind is None or kind is TEXT:
        first = {each: {"schema": schema} for each in sent_as}
    else:
        first = {each: {"schema": schema if each == _JSON else _file(each)} for each in sent_as}
    if kind is not None and not kind.json_first:
        first |= offers
    return first | content | offers  # (what is sent unasked first)


def _received(parameter: Parameter) -> tuple[str, ...]:
    """Return what a file for a parameter, or for a list of them, may be."""
    kind = kind_in(parameter.type)
    if parameter.media is not None and parameter.media.media_types:
        return parameter.media.media_types
    return kind.received if kind is not None else ()


def _file(*media_types: str) -> Json:
    """Return the schema of a file of one of these types."""
    # (`format` is how generators of clients know it from text; OpenAPI 3.1 says it with
    # `contentMediaType`.)
    said = {"contentMediaType": media_types[0]} if len(media_types) == 1 else {}
    return {"type": "string", "format": "binary", **said}


def _lines(item: Json) -> Json:
    """Return a stream as NDJSON. (A sequential media type is described as an array of its items, as
    OpenAPI 3.2 reads it.)
    """
    return {"type": "array", "items": item, "description": "A JSON value a line."}


def _events(item: Json) -> Json:
    """Return a stream as Server-Sent Events: a text, and what is in it.

    (As an array of events, generators of clients would take its text apart letter by letter.)
    """
    event = {
        "type": "object",
        "required": ["data"],
        "properties": {
            "id": {"type": "string", "description": "The number of the item, from 1."},
            "event": {
                "type": "string",
                "description": "`end`: nothing is missing; `error`: `data` is a problem.",
            },
            "data": {"type": "string", "contentMediaType": _JSON, "contentSchema": item},
        },
    }
    return {
        "type": "string",
        "contentMediaType": _EVENTS,
        "contentSchema": {"type": "array", "items": event},
        "description": "An item an event; the last one has the name `end`.",
    }


def _errors() -> dict[str, str]:
    return {str(status): description for status, description in _ERRORS.items()} | {
        "default": _OTHER
    }


def _problem(description: str) -> Json:
    content = {PROBLEM.decode(): {"schema": {"$ref": f"{COMPONENTS}Problem"}}}
    return {"description": description, "content": content}


def _read_docstring(doc: str | None) -> tuple[str, dict[str, str]]:
    # The text before the first section, and what an "Args:" section says of each parameter.
    text, *sections = re.split(r"\n\s*\n(?=\w+:\n)", inspect.cleandoc(doc or ""))
    described: dict[str, str] = {}
    for section in sections:
        head, _, body = section.partition("\n")
        if head in ("Args:", "Arguments:", "Parameters:"):
            for name, said in re.findall(
                r"^ {2,4}(\w+)(?: \([^)]*\))?: (.*(?:\n {5,}.*)*)", body, re.MULTILINE
            ):
                described[name] = " ".join(said.split())
    return text, described
