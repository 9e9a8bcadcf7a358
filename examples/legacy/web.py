"""A view of Flask that hands off: charging takes minutes, and the browser has its answer at once.

flask --app examples.legacy.web run
"""

import json
import os
import urllib.error
import urllib.request
from typing import Any

from flask import Flask

GATEWAY = os.environ.get("GATEWAY", "http://127.0.0.1:8080")
BILLS = os.environ.get("BILLS", "/tmp/bills.db")

app = Flask(__name__)


@app.post("/charge/<int:year>/<int:month>")
def charge(year: int, month: int) -> Any:
    """The id makes a second click the same task: nobody is charged twice."""
    args = {"path": BILLS, "month": f"{year}-{month:02}"}
    return ask("POST", "/tasks", {"id": f"charge-{year}-{month}", "function": "charge_all", "args": args})


@app.get("/charge/<int:year>/<int:month>")
def look(year: int, month: int) -> Any:
    """How far it is, or how it ended."""
    return ask("GET", f"/tasks/charge-{year}-{month}")


def ask(method: str, path: str, body: Any = None) -> Any:
    """What the gateway answers, with its status."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(GATEWAY + path, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer), answer.status
    except urllib.error.HTTPError as refused:
        return json.load(refused), refused.code
