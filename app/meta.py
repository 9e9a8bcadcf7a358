"""What a journal's file knows of itself: its name, and how its clock goes."""

import sqlite3
import time
import uuid
from pathlib import Path
from typing import Any


def name(db: sqlite3.Connection) -> str:
    """The journal's id, given when it was made."""
    return str(_kept(db, "id", uuid.uuid4().hex))


def clock(db: sqlite3.Connection) -> float:
    """What its clock is ahead of CLOCK_BOOTTIME, in seconds. Within one boot of the machine it goes on as it was; after another it begins
    with the time of day."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    if _kept(db, "boot", boot) != boot:
        db.execute("DELETE FROM meta WHERE name IN ('boot', 'base')")
        _kept(db, "boot", boot)
    return float(_kept(db, "base", time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)))


def _kept(db: sqlite3.Connection, name: str, default: Any) -> Any:
    db.execute("INSERT OR IGNORE INTO meta VALUES(?, ?)", (name, default))
    return db.execute("SELECT value FROM meta WHERE name=?", (name,)).fetchone()[0]
