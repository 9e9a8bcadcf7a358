"""The benchmark: what a task costs the server, beside the least that a WebSocket server can cost. It uses the server from outside alone."""
