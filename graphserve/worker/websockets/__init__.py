"""WebSockets of the entry: from the handshake to the last close frame.

    door           SocketDoor: what the public port knows of WebSockets; it needs nothing else here
    routes         SocketRoutes: finds what a handshake is for, by its path
    handshake      Handshake: what is wrong with it, and what it is answered with
      -> connection    WebSocketConnection: takes the place of the PublicConnection, and has its
                       limits: size, pings, silence, time, slow readers
         conversation  Conversation: what is between the two sides, and what becomes of the user's
                       code when the client is gone
           -> endpoint SocketEndpoint: an ASGI application that runs the method of a service, in
                       a slot, with a context; `local()` has it without a connection

Runs in entry workers; `door` in fallback servers too, `conversation` and `endpoint` in `local()`.
The frames are read and written by the package `websockets`, which is imported only where a service
has a WebSocket.
"""
