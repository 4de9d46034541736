"""The parent process: it starts, watches, replaces and stops the workers.

It never imports user code.

    supervisor        from the first line to the exit code: `Supervisor` is the process,
                      `SupervisedGraph` what it starts, serves and stops; it gets the Plan from the
                      resolver
    signals, systemd, watch
                      what it hears of: signals, the service manager, files that changed
    events            what it tells whoever started it: states of nodes, lines of output, and what
                      happened to the graph
    log_ring          keeps the newest of what was said, for `graphserve logs`
    event_ring        keeps what happened lately, for `graphserve events`
    timing            what a start or a reload took, for `graphserve status --timing`
    run_folder        keeps up the run folder: what others remove of it is made anew
    fleet             every node that runs, in order; it hears the workers, and tells callers what
                      becomes of nodes
    revision          a Plan that runs, with its number and its file in the run folder
    node              one node's workers and its restart policy
    backoff           how long the restart policy pauses between starts that fail
    counts            gives each process memory to count in, keeps what those have counted that are
                      gone
    verdicts          decides by its health reports whether a worker is recycled or killed
    overload          tells when a node begins to refuse calls, and when that is over
    certificate_watch
                      tells before the certificate expires
    quarantine        refuses calls that have killed two workers
    rollout           replaces the workers of a node: by those of another revision, by more or
                      fewer, or one that has had its time (recycling)
    operations        reload, scale, restart: one at a time
    fallback_process  when a fallback server, which answers at the public port while no worker of
                      the entry does, is started and sent away; and when the public port
                      is closed
    waiting           waits for several things at once, none of which outlives the wait
    states            which state of a worker, a node, a rollout or the graph may follow which
    process/          the processes themselves, on circus
    control/          what operators ask

One start: `SupervisedGraph` has the Plan resolved, `Fleet.add_revision` makes a revision of it,
`Fleet.start` has each node spawn its workers. They import side by side; each is sent `Init` when
what it needs is ready, and says `Ready`.
"""

from graphserve.supervise.events import (
    LogRecord as LogRecord,
    NodeState as NodeState,
    Observer as Observer,
)
from graphserve.supervise.supervisor import run as run
