"""Turns values into bytes and back: what crosses a socket, as the types of an API say. Only this
room knows pydantic, numpy and msgspec, and what users' values come from: Pillow, torch, pandas,
polars, pyarrow. It reads forms by python-multipart.

    signature, type_hints    read the annotations of an API, once
    signature_fingerprint    compares the signatures of two revisions
    substitutes              says what to write for what cannot be sent
    codec                    arguments and result of one API, made when a worker starts
    values                   codes each value of them
      extensions             arrays, models, large integers and references to memory inside msgpack
      arrays                 numpy's arrays as bytes or from lists
      pydantic_models        pydantic's types, by changed copies of their schemas
      pydantic_schemas       makes these copies
    media/                   files and forms: what is no JSON, by a table of kinds of value
    url_arguments            arguments in the path and the query of a URL
    api_keys                 keys of the ports: a file of them, of which only digests stay
    hosts                    the hosts that requests name, and which are this machine's own
    checks/                  what msgspec leaves open: NaN, defaults, duplicates, dtypes and shapes
    costs/                   checks a public body before anything is made of it
    exceptions               what all of these raise
    validation_errors        tells a caller what is wrong with what it sent
    problem                  makes the response of an error
    reason_phrases           the words of the first line of a response
    trust, headers, formats  whose request it is, what its head says, how its body is written
    shared_buffers           large buffers beside the socket: memory that two processes share
    openapi/                 the description of a service
    init_arguments           the arguments of its `__init__`

A request: `trust.opened` reads who opened the connection, `formats.content_format` how the body is
written, then `ArgumentsCodec.decode` screens, reads and checks it. The result goes through
`ResultCodec.encode`, an error through `problem.encode`.
"""
