"""The process of a worker: it runs one instance of one service, and answers its calls.

    main             the process from its first line to its last
    process          what the supervisor tells it, and what it does then (with `lifecycle`)
    server           what it serves: the instance, the listeners, and the way out (with `drain`)
    fallback         what answers at the public port while no worker of the entry takes calls; a
                     process of its own
    instance         the user's object: made, entered, left
    forks, logs      what user code forks, and what it logs
    stacks           where the process is, for `graphserve stack`
    flight_recorder  what is executed, in memory that the supervisor reads after a death
    http/            bytes of a connection to requests, and results to bytes
    dispatch/        slots, permits, deadlines; the call of the method
    batch/, stream/  calls that are joined, and items that come or go one by one
    websockets/      clients that stay connected, and the methods that talk to them
    middleware       what the entry puts around everything at its port
    mounts/          applications and folders that the port serves besides
    pages/           health, the OpenAPI document and the pages of the entry

A request: `http/` reads it from a connection that `dispatch/slots` accepted (or from the public
port), decodes the arguments, and hands them to `dispatch/executor` (or to `batch/`, `stream/`);
what the method returns goes back through `http/response`.
"""
