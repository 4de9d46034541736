"""Running a graph from Python: `serve()` with real processes, `local()` in this one."""

from graphserve.run.local_graph import local as local
from graphserve.run.server import Server as Server, serve as serve
