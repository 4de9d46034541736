"""What the operating system gives and refuses: processes, descriptors, folders, signals.

Used in every process.

    child_process   the file that our children begin with; they end with their parent, and their
                    group with them
    inherited       standard streams and signals, put right at the start of each process
    process_title   what `ps` and `top` call a process
    stack           where a process hangs: written by it at a signal, read by who watches it
    channel         the control connection: carries messages and descriptors between the
                    supervisor and a worker
    messages        what the two say there, a class a message
    worker_pages    what the supervisor and its workers read of each other without a message
    listening       why a graph cannot listen at its address, in words
    rundir/         the run folder: names, the lock, who is alive, cleaning up
    transitions     tables of states: which may follow which
    machine         CPUs, GPUs and open files that we may use
    pagemap         which pages of a private mapping were written to
    os_errors       what the kernel refused, and what to do about it
    own_json        JSON that user code cannot change
    frozen          `dataclass(frozen=True)` that costs little at import

A child begins in `child.py`: `inherited` first, then `child_process.die_with_parent` and
`process_title`; a worker then opens its `channel`, and gets the roster (`worker_pages`) by it.
"""
