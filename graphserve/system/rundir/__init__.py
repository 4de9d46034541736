"""The run folder: what a running graph keeps on disk, and who owns it.

    lock  control.sock  workers.sock  1/plan.json  n0/q.sock  n0/b1.sock  n0/<pid>.sock …

A reload makes the folder 2 for its Plan, and removes 1 with the last worker that was started from
it; no number comes again. A node's folder is keyed by the node's id, which is never used for
another node while the graph runs, so an old caller cannot reach a wrong node.

    paths     the names in a run folder, and where a new one is made; all that workers need
    lock      the lock and its marker: whether a folder is ours, and whether a graph runs in it
    search    the run folders of this user whose graphs run, removed ones and linked ones too
    cleanup   removes what is ours from a folder: of a node, of a Plan, of graphs that were killed
    claim     the supervisor's own run folder: made, locked, made again where others removed it

A start: `cleanup.remove_stale`, then `claim.RunDir` takes a folder; everybody else gets its path
and asks `paths`. A command that looks for a running graph asks `search.live_folders`.
"""
