"""The command line of the faults: `python -m bench.faults [ROW …]`. Runs rows, prints the ledger, one line each; 1 where one is broken."""

import argparse
import random
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial

from bench.faults import crowd, disk, kills, reloads, rude, service
from bench.faults.accounts import HEADINGS, Accounts
from bench.faults.stage import Plan
from bench.report import columns

ROWS: dict[str, Callable[[Plan], Accounts]] = {
    "idle-worker": kills.idle_worker,
    "busy-worker": kills.busy_worker,
    "busy-worker-retryable": kills.busy_worker_again,
    "before-effect": kills.before_effect,
    "after-effect": kills.after_effect,
    "after-effect-retryable": kills.after_effect_again,
    "gateway": kills.gateway,
    **{row.replace(" ", "-"): partial(kills.gateway_at, row) for row in kills.POINTS},
    "fsync-fails": disk.fsync_fails,
    "disk-full": disk.disk_full,
    "stopped-worker": rude.stopped,
    "memory-hungry": rude.hungry,
    "out-of-memory": rude.out_of_memory,
    "ends-its-process": rude.ends_its_process,
    "segfaults-beside-others": rude.crashes_beside_others,
    "holds-the-cpu": rude.spins,
    "holds-the-cpu-apart": rude.spins_apart,
    "connections": crowd.connections,
    "does-not-read": crowd.slow_readers,
    "attacks": crowd.attacks,
    "term-under-load": service.term_under_load,
    "supervisord-restart": service.supervisord_restart,
    "supervisord-split-restart": service.supervisord_split,
    "supervisord-split-kills": service.supervisord_kills,
    "broken-module": service.broken_module,
    "hup": reloads.hup,
    "master": kills.master,
    "everything": kills.everything,
}


def main() -> int:
    """Run the rows asked for, or all."""
    parser = argparse.ArgumentParser(prog="bench.faults", description="Faults under a load of tasks, and the ledger that must add up.")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)} (default: all)")
    parser.add_argument("--tasks", type=int, default=10_000, help="tasks a row (default 10,000)")
    parser.add_argument("--kills", type=int, default=20, help="kills a row, where it has any (default 20)")
    parser.add_argument("--seed", type=int, default=None, help="of every chance that is taken (default: another each time)")
    parser.add_argument("--brief", action="store_true", help="at named points instead of random moments, as the tests do")
    arguments = parser.parse_args()
    unknown = set(arguments.rows) - ROWS.keys()
    if unknown or arguments.tasks < 1 or arguments.kills < 1:
        parser.error(f"no row is called {', '.join(sorted(unknown))}" if unknown else "--tasks and --kills are at least 1")
    seed = random.randrange(1 << 30) if arguments.seed is None else arguments.seed
    print(f"seed {seed}", flush=True)
    return _run(arguments.rows or list(ROWS), Plan(arguments.tasks, arguments.kills, seed, not arguments.brief))


def _run(rows: list[str], plan: Plan) -> int:
    table, failed = [HEADINGS], False
    for name in rows:
        began = time.monotonic()
        try:
            accounts = ROWS[name](plan)
        except disk.Skipped as skipped:
            table.append([name, *["-"] * (len(HEADINGS) - 3), f"{time.monotonic() - began:.1f}", "skipped"])
            print(f"{name} was not played: {skipped}", flush=True)
            continue
        except Exception:  # noqa: BLE001 - the barrier of one row: it is printed, and the others follow
            traceback.print_exc()
            table.append([name, *["-"] * (len(HEADINGS) - 3), f"{time.monotonic() - began:.1f}", "FAILED"])
            failed = True
            continue
        table.append(accounts.cells())
        print("  ".join(accounts.cells()), *accounts.remarks, *accounts.broken[:20], sep="\n    ", flush=True)
        failed = failed or bool(accounts.broken)
    print("", *columns(table), sep="\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
