"""The HTTP of a worker: from an accepted socket to the bytes of an answer.

    public/                         the public port: accepts there, knows how long a client may take
      -> protocol                   HttpConnection: one connection that the parser reads
    transport                       what a connection knows of its transport: its ends, its flow
    fast_connection (fast_parser)   one connection by a shared socket, read and answered without a
                                    parser
      both of a listener            what the connections of one socket share: APIs, slots, limits,
                                    the time
    routing                         finds the API by the method and the path
    limits                          how much a client may send, and how slow it may be; the words of
                                    a 413
      -> request (headers)          HttpRequest: one call of an API: read, checked, executed
         answering                  AnswerableRequest, which it is: what it is answered with
      -> asgi                       AsgiRequest: what is for no API goes to the application of
                                    health and pages
         contexts                   ClientContext: of what is mounted, and of WebSockets;
                                    HandedContext: of what comes out of middleware
           response                 Responder: the bytes of an answer; HttpSink: of a stream
           file_answer              FileAnswer: a file on disk is sent, or a part of it
           relay                    passes a call on to the node's own queue, where every slot is
                                    taken

A public request is checked by `strict` (what two readers could read in two ways) and `browsers`
(hosts and origins; `cors` lets pages of other origins in), refused by `dispatch.shedding` when it
would be late, and noted by `access_log`. `forwarded` says who its client is behind a proxy.

The way of one: `PublicConnection.data_received` -> `on_headers_complete` -> `begin_request` ->
`HttpRequest.headers_complete` -> `message_complete` -> `_execute` -> the executor, a batch or the
relay -> `AnswerableRequest._write` -> `PublicConnection.on_response_complete`.
"""
