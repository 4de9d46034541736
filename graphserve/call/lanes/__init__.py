"""The lanes: the ways on which an exchange gets to a node. Which one an API takes is in the Plan.

    queue    one connection a call on the node's shared socket: the free worker takes the oldest
             call
    pooled   kept-alive connections to each worker, the one with the fewest calls in flight first
    base     what queue and pooled share: the pushed state of the node, the errors of a node that
             cannot be reached
    optional
             stands before the lane of an edge that is optional, and refuses calls as long as the
             node was never ready
    of_process
             makes those of a process, each once
    url      httpx, to a service that is no node of this graph
    encoding
             stands before any of these where the arguments take long to write: a thread does it

Each implements `Lane` of `call/exchange.py`: the exchange calls `send`, and is told of the answer
or the loss; `forget` when it is over. A local graph has lanes of its own (`run/local_node.py`,
`run/local_http.py`).
"""
