"""Files, and what else is no JSON: how it comes in and goes out by itself.

    kinds        which parameters and results are files
    bodies       turns a raw body, or a form, into arguments; text reads what is text there
    multipart    cuts a form into its parts
    images       pictures as files; pixels is how they pass between services
    answers      in which media types a result may leave, and which one an Accept asks for

A body: `BodyReader.compose` makes msgpack of it, with the files as they are, and
`ArgumentsCodec.decode` reads that as any other body. Between services none of this is used: there
the same values travel in msgpack.
"""
