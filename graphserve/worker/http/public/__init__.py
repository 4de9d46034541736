"""The public port: who may connect, and how long a client may take.

    acceptor        accepts at the public socket, and hands each connection to what reads it
    tls             the TLS of those connections
      -> early      EarlyConnection: what clients send before there is a Plan; of a fallback server
      -> connection
                    PublicConnection: an `HttpConnection` that trusts nobody
    timeouts        ends connections that are idle, or whose clients send or read too slowly

Runs in entry workers and in fallback servers.

A connection: `Acceptor` counts it, tls opens it, `PublicConnection.data_received` reads it. From
`PublicConnection.begin_request` on, a request is as any other of `worker.http`, which imports
nothing of this folder: who reads how a call is read and answered never needs it.
"""
