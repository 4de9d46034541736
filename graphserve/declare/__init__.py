"""What users write, and what it leaves on their classes.

Starts nothing, imports no user module, knows no process.

    service      `@service` and `@api`: check a class and its methods, and leave declarations on
                 them
    dependency   `depends(...)`: an edge of the graph, which raises in words where it is used too
                 early
    misplaced    finds each `depends(...)` that is no attribute of a service
    routes       methods and paths at the port: which there can be, and which conflict
    websockets   `@websocket`: methods that talk to a client that stays connected
    media        `Media`: what a result is sent as, which files a parameter takes and how large
    mounts       what `mount={…}` names: applications and folders that the port serves besides
    origins      the origins of pages that `cors=[…]` and `--cors-origin` name
    sizes        sizes in bytes as people write them: "10 MiB"
    addresses    what `depends(url=…)` may be given, and how it is shown without its password
    options      names, types, defaults and bounds of the options of both
    declaration  the declarations, and how they are read back
    typed        what mypy and pyright see of an API, and the two things that a call may return

`@api` leaves an ApiDeclaration on a method, `@service` a ServiceDeclaration on the class; `graph`
reads both.
"""
