"""Batches: the calls of several callers are joined into one execution,
and its result is split again.

    batcher       collects the calls of one API while it holds a slot (and, among several workers,
                  the batch lease)
    batched_call  one caller's call in a batch, and what is gathered of its result
    joining       joins lists and arrays end to end, and splits one result among its callers

A connection reserves a place (`Batcher.reserve_place`), its call joins (`join`), and the batch
closes with `max_size` items or `max_wait` seconds after the first. The lists are joined,
executed as one call, and each caller gets its part; if the method raises and is idempotent, each
caller's share runs again alone.
"""
