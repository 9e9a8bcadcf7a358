"""A cron script that hands off, and waits: what it charged goes to stdout, why it did not to stderr.

0 3 1 * *  cd /srv/handoff && .venv/bin/python -m examples.legacy.nightly /srv/shop/bills.db 2026-11
"""

import os
import sys

from app.errors import HandoffError
from app.remote import Session

GATEWAY = os.environ.get("GATEWAY", "ws://127.0.0.1:8080/ws")


def main(path: str, month: str) -> int:
    """The exit code. Run again, with the same month, it waits for the same task."""
    try:
        with Session(GATEWAY, give_up=60) as session:
            print(session.call("charge_all", {"path": path, "month": month}, id=f"nightly-{month}", timeout=3600))
    except HandoffError as error:
        print(f"not charged: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
