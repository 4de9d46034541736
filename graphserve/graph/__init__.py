"""From an import string to the Plan: what will run, and how it is connected.

User code is imported in the resolver.

    resolver   the parent's side: starts the resolver process, and waits for its Resolution
    importer   an import string to the class that it names
    builder    walks the services from the entry, and makes the Plan (networkx is imported here
               only)
    checks     what can be seen of a class before an instance of it is made
    mounts     the applications that are mounted: imported, and checked
    plan       the Plan and the Resolution: frozen dataclasses, JSON in and out

A start: the supervisor runs `resolver.Resolver`; that process imports the entry, walks its
`depends(...)` and answers with a Resolution. The Plan in it is all that supervisor and workers know
of the graph.
"""
