"""Files, and what else is no JSON: how it comes in and goes out by itself.

    classes      names the classes of libraries that have a kind of value of their own
    kinds        the table of kinds: one `MediaKind` a kind, imported when it is first asked for
    octets       bytes, and text that leaves as it is, as HTML or CSV (`text` reads arguments)
    images       pictures as files
    pixels       pictures as they pass between services
    npy          arrays as files
    tensors      tensors of PyTorch
    tables       tables of pandas, polars and pyarrow
    arrow_costs  bounds what a table becomes when its file is read
    files        which parameters and results are files, and of which kind
    bodies       turns a form, or a file, into arguments
    text         reads arguments that are text, in forms and in URLs, as their types say
    multipart    cuts a form into its parts
    urlencoded   cuts a form without files, or a query, into names and values
    registered   `register_type`: kinds of the user's
    paths        files on disk
    received     the files of one request, beside its other arguments
    answers      in which media types a result may leave, and which one an Accept asks for

A body: `BodyReader.compose` makes msgpack of it, with the files as they are or beside it, and
`ArgumentsCodec.decode` reads that as any other body; `MediaKind.read` makes the values. A result:
`accepts_of` finds the media type, `ResultCodec.encode` has `MediaKind.write` write it. Between
services none of this is used: there the same values travel in msgpack, by `PackedKind.pack`.

A new kind: a file here, with a class that is a `PackedKind` and the only one that imports its
library; its name, its mark and the class of its values in `classes`; its line in the table of
`kinds`, and nobody else who imports that file where no signature has asked for it.
Codecs, forms, answers, shared memory, OpenAPI and `/docs` ask the table. What a few bytes of a
client may cost it is a line of `costs/bounds`. Of a kind that msgspec knows already, as bytes,
`MediaKind` is enough.

These places name a kind themselves, and are read again for a new one: `signature` (what a batch may
join), `checks/arrays` and `openapi/schemas` (the dtype and the shape of an array or a tensor),
`checks/results` (whether an array is plainly of its annotation). numpy's arrays, which have a place
in msgpack too, are named by `type_hints`, `extensions` and `wire/arrays.py` besides.
"""
