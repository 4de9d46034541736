"""The caller's side of a hop: lanes, the raw client, httpx transports, typed calls. Runs in workers."""
