"""Running a graph from Python: `serve()` with real processes, `local()` in this one."""

from graphserve.run.inprocess import local as local
from graphserve.run.server import Server as Server, serve as serve
