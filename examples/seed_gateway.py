"""The gateway of Workerman's FAQ: any message becomes a task, and the client hears when it is done.

python run.py --handler examples.seed_gateway
"""

from app.gateway import Connection, call, on_message


@on_message
def notify(ws: Connection, message: str) -> None:
    """Blocks this greenlet only: the gateway goes on with everyone else."""
    call("send_mail", {"from": "shop@example.org", "to": "user@example.org", "contents": message})
    ws.send("task complete")
