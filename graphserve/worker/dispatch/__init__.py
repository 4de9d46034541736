"""From a request to the call of a method: slots, threads, deadlines.

    slots     when a worker accepts: its slots, the gated listeners of the shared sockets, the
              permit of a connection
    load      whether a call can still be in time: latency estimates, and the limit of a loop that
              lags
    shedding  calls are refused that would be late, or most likely end at a full queue below
    decoding  the arguments are read, those of a large public body in a thread
    encoding  a result that takes long to write is written, in a thread
    opened    a result that is a file on disk is opened, to be sent
    executor  the method is called, on the loop or in a thread, until it ends or its deadline passes
    endings   SystemExit and KeyboardInterrupt of user code are told once, and end nothing

A connection gets a permit from `slots`; its request uses that when the call begins, and
`Executor.start` runs it. When nothing of it runs any more, not before, the slot is released and the
next connection is accepted.
"""
