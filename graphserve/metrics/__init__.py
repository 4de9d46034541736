"""What is counted of a graph: workers write it into memory that their supervisor reads.

    in workers:
    recorder      a call ends: two adds into the memory, no lock, no system call
    in both:
    layout        what stands where in that memory, a few KB for each worker: a head, then series,
                  each with its key and its numbers
    in the supervisor:
    memory        makes it and reads it, also when the worker is dead
    labels        from keys to labels; the totals of workers that are gone
    families      the table of all metrics
    exposition    their text, for who asks

How large the memory is follows from the Plan. A series (an API, an edge and an outcome, a route and
a status) takes its place with its first observation. Whoever dies loses nothing: the supervisor
still has the memory, and adds it to the totals, once.
"""
