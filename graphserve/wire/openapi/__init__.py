"""Describes a service as an OpenAPI document, from its signatures and docstrings.

    document        the document: operations, their parameters, bodies and answers
    schemas         the schema of each type, and the components that they share
    time_formats    the formats of dates and times, which msgspec leaves out

`document.document` is called once, in a worker of the entry, when somebody first asks for it.
"""
