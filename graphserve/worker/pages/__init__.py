"""What a worker answers beside its APIs.

    health  the ASGI application of every worker: `/livez`, `/readyz`, and words for what does not
            exist
    docs    the pages of the entry as a Starlette application: `/openapi.json`, `/docs`, `/`
    static  the files that `/docs` loads

A request for no API goes to `health.App`, and from there to the application of `docs` if the worker
is of the entry.
"""
