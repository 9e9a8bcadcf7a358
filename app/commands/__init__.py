"""The commands that talk to a server that runs: call, tasks, functions, status, connections, completion. Each parses, asks, shows; no
server imports them."""
