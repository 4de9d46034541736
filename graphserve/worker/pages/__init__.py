"""What a worker answers beside its APIs.

    application  the ASGI application of every worker: it answers health, and has words for what
                 does not exist
    health       whether the worker lives and is ready: `/livez`, `/readyz`
    docs         the pages of the entry as a Starlette application: `/openapi.json`, `/docs`, `/`
    static       the files that `/docs` loads

A request for no API goes to `WorkerApp`, and from there to the application of `docs` if the worker
is of the entry and a page is asked for; `PagesOnDemand` makes it at the first such request.
"""
