"""What our processes say, whatever user code does to `logging`. Used in every process.

    records          what a worker says of itself, through a pipe of its own to the supervisor
    tracebacks       tracebacks from the user's first frame on, without our own frames
    text             text of users and clients, with escapes for what cannot be shown
    exception_text   what exceptions say, as text that can be sent, whatever user code wrote there

A worker says something with `records.note`; its supervisor reads the pipe and shows the line.
"""
