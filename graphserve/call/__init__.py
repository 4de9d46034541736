"""Calls to other nodes, as callers make them: from `self.dep.method(...)` to bytes on a socket, and
back.

The way of one typed call:

    clients           make for each dependency a client, on the lanes to its node
    remote            `RemoteApi` encodes the arguments; `RemoteCall` is what user code awaits
                      (`streams`: of items); `misuse` says what to write where the await is missing
    request           the bytes of a request: what is known once, and what travels with every call
                      (`context`)
    exchange          one call on its way: deadline, retries, cancellation; it ends with an answer
                      or an error (`upload`: what it sends in pieces; `pieces`: what comes so)
    lanes/            how it gets there: one connection a call, kept-alive ones, or httpx to a URL
    connection        one socket, and the parser of its answers
    fetched           files on disk that a service elsewhere answers with
    httpx_transport   the same core under injected httpx clients

What user code may ask of the call that is executed: `context` (deadline, trace) and `in_hand` (the
request, of whose head `request_head` keeps what came), and say of its answer: `answer`.

What callers know of others: `membership` (pushed by the supervisor), `memory_sharing`,
`retry_budget`, and of calls that kill workers `suspicions` and `call_fingerprint`.
"""
