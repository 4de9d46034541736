"""Running a graph from Python: `serve()` with real processes, `local()` in this one.

server            `serve()`: the supervisor as a child process
calls             calls to its graph, from the Python program that started it
local_graph       `local()`: the nodes of a graph in this process and on this loop
local_node        one node: its instance, its slots, its queue; the lane that typed calls take
local_http        the lane that injected httpx clients take
local_sockets     WebSockets of a local graph, over ASGI
local_transport   a call as both lanes hand it over, and the sinks of its streams
contain           keeps what ends a program, raised in a task of user code, from ending this one
"""

from graphserve.run.local_graph import local as local
from graphserve.run.server import Server as Server, serve as serve
