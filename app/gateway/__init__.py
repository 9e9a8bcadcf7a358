"""The gateway: browsers on one side, dispatch on the other. Import `on_message`, `on_connect`, `on_close` and `call` to write your own, and
`Identity` to say who somebody is."""

from app.gateway.hooks import Connection, call, on_close, on_connect, on_message
from app.gateway.identity import Identity

__all__ = ["Connection", "Identity", "call", "on_close", "on_connect", "on_message"]
