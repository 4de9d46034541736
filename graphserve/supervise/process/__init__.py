"""A node's processes, on circus: spawn, output, control connections, death."""
