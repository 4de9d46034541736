"""Turns values into bytes and back: what crosses a socket, as the types of an API say. Only this
room knows pydantic.

    signature, type_hints    read the annotations of an API, once; signature_fingerprint compares
                             two revisions of it; substitutes says what to write for what
                             cannot be sent
    codec                    arguments and result of one API, made when a worker starts; values
                             codes each of them
      extensions             arrays, models, large integers and references to memory inside msgpack
      arrays                 numpy's arrays as bytes or from lists
      pydantic_models        pydantic's types, by changed copies of their schemas (pydantic_schemas)
    checks/                  what msgspec leaves open: NaN, defaults, duplicates, dtypes and shapes
    costs/                   checks a public body before anything is made of it
    exceptions               what all of these raise; validation_errors tells it a caller, problem
                             makes the response (reason_phrases: of its first line)
    trust, headers, formats  whose request it is, what its head says, how its body is written
    shared_buffers           large buffers beside the socket: memory that two processes share
    openapi/, init_arguments the description of a service, and the arguments of its `__init__`

A request: `trust.opened` reads who opened the connection, `formats.content_format` how the body is
written, then `ArgumentsCodec.decode` screens, reads and checks it. The result goes through
`ResultCodec.encode`, an error through `problem.encode`.
"""
