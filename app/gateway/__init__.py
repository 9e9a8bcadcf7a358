"""The gateway: browsers on one side, dispatch on the other. Import `on_message`, `on_connect`, `on_close` and `call` to write your own."""

from app.gateway.hooks import Connection, call, on_close, on_connect, on_message

__all__ = ["Connection", "call", "on_close", "on_connect", "on_message"]
