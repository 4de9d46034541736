"""Every trick that we play on an event loop, in one room; each has its decision record.

    reply         a future that wakes who waits in the same turn of the loop (0007)
    eager         tasks whose first step runs at once, in the turn in which the request came (0007)
    timers        deadlines that are seconds away share one timer of the loop (0007)
    poller        an epoll of our own inside the loop's, for sockets that live for one call (0008)
    periodic      what is done again and again, however often it fails
    shield        whether `asyncio.shield` protects a task (0059)
    loop_thread   the loop that calls run on, and its thread

Nothing here knows what a call or a request is: a callback, or an object to abandon, goes in, and is
called.
"""
