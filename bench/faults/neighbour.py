"""One task after the other, beside a load: `python -m bench.faults.neighbour URL FUNCTION ARGS`, until a line comes on stdin."""

import ast
import select
import sys
import uuid

from tests.harness import WsClient


def main(url: str, function: str, args: str) -> int:
    """Prints how many there were."""
    done = 0
    with WsClient(url, timeout=60) as client:
        while not select.select([sys.stdin], [], [], 0)[0]:
            name = f"neighbour-{uuid.uuid4().hex}"
            client.send({"id": name, "function": function, "args": ast.literal_eval(args)})
            client.final(name, 60)
            done += 1
    print(done)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
