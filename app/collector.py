"""When the garbage collector runs. Almost nothing here is freed by it (tasks leave no cycles behind), and at the default of 700 objects it
took a third of the gateway's time."""

import gc

_YOUNG = 50_000
_MIDDLE, _OLD = 10, 20


def settle() -> None:
    """Call it once a process has booted: what it loaded is there to stay, and new objects are looked at in large batches."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)
