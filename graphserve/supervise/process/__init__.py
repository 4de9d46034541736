"""The processes of workers: spawn, output, control connections, death. They are spawned by
circus.

Runs in the supervisor.

    worker_process   `Pool` has the processes of a node: it spawns each, and hears of its death by a
                     pidfd; `WorkerProcess` is one of them, from spawn to death
    environment      what a worker finds in its environment: its slot, threads, GPUs, its mark
    control_connections
                     the socket that workers connect to, and the messages that come by it
    output           what they print and log, line by line, as records
    reaper           what their code leaves behind: processes whose parent is gone
    sockets          the listening sockets: those of the nodes, and the public one
    _circus          circus, without what only its own daemon uses

One worker: `Pool.spawn` starts it with its environment, and reads its outputs. It connects, and the
kernel tells `ControlConnections` its pid; what it says goes to `Fleet`. When it is gone, `Pool`
closes what belongs to it, and tells `Node`.
"""
