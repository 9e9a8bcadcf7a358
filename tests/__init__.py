"""Real processes, real sockets, real clients: what is promised, tried out."""
