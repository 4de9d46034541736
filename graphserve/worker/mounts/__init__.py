"""Applications and folders that the port of the entry serves beside its APIs.

    apps        makes an ASGI application of what was mounted: WSGI, an import string, a folder
    lifespan    starts an application when its worker starts, and stops it before that leaves
    mounts      finds the one that a path belongs to, and what it is told of a request

A request: `worker.http.asgi` reads it, the application of health and pages finds no API and no page
of its own at its path, and `Mounts` hands it on.
"""
