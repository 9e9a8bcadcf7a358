"""The gateway's side: the wire, the client, the pool of workers, dispatch, and the gateway itself."""
