"""What our processes say, whatever user code does to `logging`. Used in every process.

records      what a worker says of itself, through a pipe of its own to the supervisor
tracebacks   tracebacks from the user's first frame on, without our own frames
text         text of users, clients and exceptions, with escapes for what cannot be shown or sent
"""
