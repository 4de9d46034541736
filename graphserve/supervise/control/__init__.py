"""The control socket: what operators ask of a running graph."""
