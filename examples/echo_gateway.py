"""Sends each message back, text or binary: a peer for tools that test WebSocket itself.

python run.py --handler examples.echo_gateway --max-message 16MiB
"""

from app.gateway import Connection, on_message


@on_message(binary=True)
def echo(ws: Connection, message: str | bytes) -> None:
    """A `str` goes back as text, `bytes` as binary."""
    ws.send(message)
