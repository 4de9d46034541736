"""The control socket: operators see and change a running graph over HTTP on `control.sock`.

Runs in the supervisor.

    server    the paths: what each needs, does and answers; `Control` is what it needs of the
              supervisor
    http      the HTTP server below it: one request a connection, every size and time bounded; h11
              parses
    admin     the same at a TCP port, and who may come there
    logs      the newest records, as `GET /logs` asks for them
    readers   the clients of an answer that goes on, of which there are only so many
    queries   what the query of a request says
    stacks    where workers are, as `GET /stack` asks them by signals
    events    what happened lately, as `GET /events` asks for it
    metrics   what `GET /metrics` answers, of what workers count and the fleet knows
    status    the JSON of `/ps` and `/status`, read from the fleet

A request is read by `http.read`, `ControlApi.answer` finds its path, and what it asks for is done
by `supervise/operations.py` (reload, restart, scale), by `supervise/signals.py` (stop), or read by
`status`. The commands of `cli/operate.py` are its clients, by `cli/client.py`.
"""
