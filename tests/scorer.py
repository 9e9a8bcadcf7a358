"""A process with a slot of the scoreboard, for its tests: `python -m tests.scorer DIRECTORY COUNT` says COUNT, prints the number of its
slot, and stays until its stdin ends. With `--bury` it is killed in the middle of taking over a slot; with `--twice` it counts one more,
with `--again` one after the other."""

import os
import signal
import sys
import uuid
from pathlib import Path

from app.scoreboard import Board, Slot


class HalfBuried(Board):
    """Is killed after it has counted what the last process in its slot said, and before it has emptied that slot."""

    def _clear(self, number: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def main(directory: str, count: str, how: str = "") -> None:
    """Take a slot, and say it."""
    slot = (HalfBuried if how == "--bury" else Board)(Path(directory), make=True).take()
    said = {"id": uuid.uuid4().hex, "pid": os.getpid(), "counts": {"done": int(count), "ended": {f"f{count}": [int(count)]}}}
    slot.write(said)
    if how == "--again":
        _again(slot, said)
    elif how == "--twice":
        slot.write({**said, "counts": {"done": int(count) + 1}})
    print(slot.number, flush=True)
    sys.stdin.read()


def _again(slot: Slot, said: dict[str, object]) -> None:
    """Count on and on; what is counted twice over fills the half differently each time."""
    print(slot.number, flush=True)
    number = 0
    while True:
        number += 1
        slot.write({**said, "counts": {"done": number}, "padding": "x" * (number * 37 % 5000)})


if __name__ == "__main__":
    main(*sys.argv[1:])
