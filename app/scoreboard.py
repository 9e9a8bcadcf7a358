"""The scoreboard: a file in the run directory in which every process says, a few times a second, how it is and what it has counted.

    slot 0    what the processes have counted that are gone
    slot 1…   one a process, taken by a lock that ends with it: so that a kill -9 frees it, and no master is needed

A process writes its own slot alone, through a memory mapping, so that what it said last is there whatever becomes of it. A slot has two
halves, written in turns, each with a number and a checksum: whoever is killed while writing leaves the half before. What a process has
counted is added to slot 0 by whoever takes its slot next, and by every reader until then: so a total never goes back. Counting begins
anew with the first process that finds nobody else here.

What is said is JSON, and bounded by who says it: `app/heartbeat.py` and those who feed it. The standard library alone.
"""

import contextlib
import itertools
import json
import logging
import mmap
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from app import locks

log = logging.getLogger(__name__)

HALF = 32 * 1024
SLOT = 2 * HALF
MOST_SLOTS = 8192

_FILE, _LOCKS = "scoreboard", "scoreboard.lock"
_HEAD = struct.Struct("<QII")
"""Of a half: its number (the higher one counts), and the length and CRC-32 of what follows."""

MOST_SAID = HALF - _HEAD.size
"""Bytes of JSON that a process may say at once."""

_DEAD = 0
_TRIES = 100

Tree = dict[str, Any]
"""Numbers by name; under a name may be another such tree, or a list of numbers."""


class Reading(NamedTuple):
    """`alive`: what each process said last that lives, in the order of the slots, with the number of its `slot`. `counts`: what all have
    counted together, those that are gone included."""

    alive: list[Tree]
    counts: Tree


class _Half(NamedTuple):
    number: int
    whole: bool
    data: bytes


_NOTHING = _Half(0, True, b"{}")


class Slot:
    """The place of this process."""

    def __init__(self, board: "Board", number: int, place: mmap.mmap) -> None:
        self.board = board
        self.number = number
        self._map = place
        self._sequence = 0

    def write(self, said: Mapping[str, Any]) -> None:
        """Say this from now on: `id` names the process as no other, `counts` is a `Tree` that only grows, the rest is anything. Raises
        `ValueError` past `MOST_SAID` bytes."""
        data = _encode(said)
        self._sequence += 1
        start = self._sequence % 2 * HALF
        self._map[start + _HEAD.size : start + _HEAD.size + len(data)] = data
        self._map[start : start + _HEAD.size] = _HEAD.pack(self._sequence, len(data), zlib.crc32(data))


class Board:
    """The file, to be read; `take` makes a place in it. Raises `FileNotFoundError` where there is none, unless `make` says to make it, and
    other kinds of `OSError`."""

    def __init__(self, run_dir: Path, *, make: bool = False) -> None:
        flags = os.O_CLOEXEC | (os.O_RDWR | os.O_CREAT if make else os.O_RDONLY)
        self._own = -1
        self._locks = os.open(run_dir / _LOCKS, flags, 0o600)
        try:
            self._file = os.open(run_dir / _FILE, flags, 0o600)
        except OSError:
            os.close(self._locks)
            raise

    @property
    def descriptors(self) -> tuple[int, ...]:
        """The files that are open here."""
        return (self._locks, self._file)

    def close(self) -> None:
        """Let go of it, and of the place in it."""
        for descriptor in self.descriptors:
            os.close(descriptor)

    def take(self) -> Slot:
        """Have a slot, until this process ends. Raises `OSError` where the disk has no room for it."""
        with self._alone():
            anew = not any(self._is_held(number) for number in self._numbers())
            number = next(number for number in range(1, MOST_SLOTS) if locks.take(self._locks, number))
            self._own = number
            for needed in (_DEAD, number):
                os.posix_fallocate(self._file, needed * SLOT, SLOT)  # or a full disk would end whoever writes to the mapping
            if anew:
                for other in (_DEAD, *self._numbers()):
                    self._clear(other)
            else:
                self._bury(number)
        return Slot(self, number, mmap.mmap(self._file, SLOT, offset=number * SLOT))

    def read(self) -> Reading:
        """What is there now. Where somebody is buried meanwhile, it looks again."""
        for _ in range(_TRIES):
            before, dead = self._latest(_DEAD)
            alive, counts = [], dead.get("counts", {})
            for number in self._numbers():
                _, said = self._latest(number)
                if not said or said["id"] == dead.get("buried"):
                    continue
                counts = add(counts, said.get("counts", {}))
                if number == self._own or self._is_held(number):
                    alive.append({**said, "slot": number})
            if self._latest(_DEAD)[0] == before:
                break
        return Reading(alive, counts)

    def _numbers(self) -> range:
        return range(1, os.fstat(self._file).st_size // SLOT)

    def _is_held(self, number: int) -> bool:
        return locks.holder(self._locks, number) != 0

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else takes a slot meanwhile."""
        locks.wait(self._locks, _DEAD)
        try:
            yield
        finally:
            locks.give(self._locks, _DEAD)

    def _bury(self, number: int) -> None:
        """Add what the last process in this slot has counted to what the dead have, and empty it. Whoever is killed between the two
        leaves a slot whose process slot 0 names as `buried`: it is not counted again."""
        _, last = self._latest(number)
        sequence, dead = self._latest(_DEAD)
        if last and last["id"] != dead.get("buried"):
            try:
                self._write(_DEAD, sequence + 1, {"buried": last["id"], "counts": add(dead.get("counts", {}), last.get("counts", {}))})
            except ValueError as error:
                log.error("scoreboard-full: what pid %s has counted is lost: %s", last.get("pid"), error)
        self._clear(number)

    def _write(self, number: int, sequence: int, said: Mapping[str, Any]) -> None:
        data = _encode(said)
        head = _HEAD.pack(sequence, len(data), zlib.crc32(data))
        os.pwrite(self._file, head + data, number * SLOT + sequence % 2 * HALF)

    def _clear(self, number: int) -> None:
        for half in (0, HALF):
            os.pwrite(self._file, bytes(_HEAD.size), number * SLOT + half)

    def _latest(self, number: int) -> tuple[int, Tree]:
        """The number of the last half that is whole, and what it says; (0, {}) where there is none. Where the one that is not whole has the
        higher number, it was overwritten while it was read, and the other is older than it was: then it looks again."""
        lower, higher = _NOTHING, _NOTHING
        for _ in range(_TRIES):
            lower, higher = sorted(self._half(number * SLOT + start) for start in (0, HALF))
            if higher.whole:
                return higher.number, json.loads(higher.data)
        return (lower.number, json.loads(lower.data)) if lower.whole else (0, {})  # the disk has damaged it

    def _half(self, at: int) -> _Half:
        """Its head is written last, and read first."""
        head = os.pread(self._file, _HEAD.size, at)
        number, length, checksum = _HEAD.unpack(head) if len(head) == _HEAD.size else (0, 0, 0)
        data = os.pread(self._file, min(length, MOST_SAID), at + _HEAD.size)
        return _Half(number, zlib.crc32(data) == checksum, data or b"{}")


def _encode(said: Mapping[str, Any]) -> bytes:
    data = json.dumps(said, separators=(",", ":")).encode()
    if len(data) > MOST_SAID:
        raise ValueError(f"{len(data)} bytes are too many for a slot")
    return data


def add(one: Any, other: Any) -> Any:
    """The sum of two trees: names that only one of them has stay as they are."""
    if isinstance(one, dict):
        return {**one, **{name: add(one[name], value) if name in one else value for name, value in other.items()}}
    if isinstance(one, list):
        return [a + b for a, b in itertools.zip_longest(one, other, fillvalue=0)]
    return one + other
