"""The way out of a socket: everything in order, one write a turn, whatever the socket takes at a time."""

import os
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import gevent
import pytest
from gevent import socket
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import Unavailable
from app.outbox import Outbox
from app.turn import Turn

BUFFER = 8192


class Peer:
    """An outbox, and the socket at its other end; `writes` are the sizes that went to the system at a time."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        self.theirs.settimeout(5)
        self.loop = gevent.get_hub().loop
        self.turn = Turn(self.loop)
        self.broken = 0
        self.writes: list[int] = []
        self.outbox = Outbox(self.ours, self.turn, self.loop, self._broken)

    def _broken(self) -> None:
        self.broken += 1

    def receive(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            more = self.theirs.recv(min(65536, size - len(data)))
            assert more, "the connection ended"
            data += more
        return bytes(data)

    def stuff(self) -> bytes:
        """Fill the socket, so that more has to wait; what was put in."""
        data = os.urandom(40 * BUFFER)
        self.outbox.put(data)
        settle()
        assert self.outbox.unsent > 0
        return data

    def close(self) -> None:
        self.outbox.close()
        self.ours.close()
        self.theirs.close()


def settle() -> None:
    """Let the loop turn a few times."""
    for _ in range(3):
        gevent.sleep(0)


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Peer]:
    one = Peer()
    real = os.write

    def write(fd: int, data: Any) -> int:
        sent = real(fd, data)
        one.writes.append(sent)
        return sent

    monkeypatch.setattr("app.outbox.os", SimpleNamespace(write=write))
    yield one
    one.close()


@given(st.lists(st.binary(min_size=1, max_size=3000), max_size=60), st.lists(st.integers(0, 59), max_size=10))
@settings(max_examples=50, deadline=None)
def test_bytes_come_out_in_the_order_in_which_they_were_put(chunks: list[bytes], pauses: list[int]) -> None:
    peer = Peer()
    reader = gevent.spawn(peer.receive, sum(map(len, chunks)))
    for number, chunk in enumerate(chunks):
        peer.outbox.put(chunk)
        if number in pauses:
            gevent.sleep(0)
    assert reader.get(timeout=10) == b"".join(chunks)
    assert peer.outbox.unsent == 0
    peer.close()


def test_all_that_was_put_in_one_turn_is_one_write(peer: Peer) -> None:
    for number in range(100):
        peer.outbox.put(b"%d\n" % number)
    assert peer.writes == []
    settle()
    assert peer.writes == [290]
    assert peer.receive(290).count(b"\n") == 100
    peer.outbox.put(b"next turn")
    settle()
    assert peer.writes == [290, 9]


def test_put_never_blocks_and_counts_what_is_unsent(peer: Peer) -> None:
    began = time.monotonic()
    for _ in range(100):
        peer.outbox.put(b"x" * 10_000)
    assert time.monotonic() - began < 1
    assert peer.outbox.unsent == 1_000_000
    settle()
    assert 0 < peer.outbox.unsent < 1_000_000
    assert sum(peer.writes) + peer.outbox.unsent == 1_000_000


def test_flush_writes_now_and_the_turn_then_has_nothing_to_write(peer: Peer) -> None:
    peer.outbox.put(b"now")
    peer.outbox.flush()
    assert peer.writes == [3]
    settle()
    assert peer.writes == [3]
    peer.outbox.flush()
    assert peer.writes == [3]


def test_what_the_socket_does_not_take_follows_when_it_does(peer: Peer) -> None:
    data = peer.stuff()
    peer.outbox.put(b"the end")
    settle()
    assert peer.receive(len(data) + 7) == data + b"the end"
    assert peer.outbox.unsent == 0


def test_while_the_socket_takes_nothing_nobody_tries_again_and_again(peer: Peer) -> None:
    peer.stuff()
    peer.writes.clear()
    for _ in range(50):
        peer.outbox.put(b"more")
        peer.outbox.flush()
        gevent.sleep(0)
    assert peer.writes == []


def test_a_long_line_to_a_slow_reader_is_not_copied_at_every_write(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    """24 MiB taken 4 KiB at a time: copying the rest each time would move 72 GiB."""
    sizes: list[int] = []

    def trickle(fd: int, data: Any) -> int:
        sizes.append(len(data))
        return min(len(data), 4096)

    monkeypatch.setattr("app.outbox.os", SimpleNamespace(write=trickle))
    peer.outbox.put(bytes(24 << 20))
    assert peer.outbox.wait_below(0, 10)
    assert len(sizes) == 6144


def test_it_tells_when_bytes_last_left(peer: Peer) -> None:
    peer.stuff()
    stuck_since = peer.outbox.progress_at
    gevent.sleep(0.05)
    peer.outbox.put(b"more")
    settle()
    assert peer.outbox.progress_at == stuck_since
    peer.receive(20 * BUFFER)
    settle()
    assert peer.outbox.progress_at > stuck_since


def test_after_it_was_empty_progress_counts_from_the_first_that_waits(peer: Peer) -> None:
    peer.outbox.put(b"first")
    settle()
    gevent.sleep(0.02)
    before = time.monotonic()
    peer.outbox.put(b"second")
    assert peer.outbox.progress_at >= before


def test_wait_below_blocks_until_so_little_is_unsent(peer: Peer) -> None:
    data = peer.stuff()
    waiter = gevent.spawn(peer.outbox.wait_below, 10 * BUFFER)
    settle()
    assert not waiter.dead
    reader = gevent.spawn(peer.receive, len(data))
    assert waiter.get(timeout=5) is True
    assert reader.get(timeout=5) == data


def test_wait_below_returns_at_once_where_there_is_nothing_to_wait_for(peer: Peer) -> None:
    peer.outbox.put(b"x" * 10)
    assert peer.outbox.wait_below(10)
    assert peer.outbox.unsent == 10


def test_wait_below_gives_up_in_time_also_where_a_little_leaves_now_and_then(peer: Peer) -> None:
    peer.stuff()
    began = time.monotonic()
    waiter = gevent.spawn(peer.outbox.wait_below, 0, 0.2)
    while not waiter.dead:
        peer.theirs.recv(BUFFER // 4)
        gevent.sleep(0.02)
    assert waiter.get() is False
    assert 0.15 < time.monotonic() - began < 3


def test_several_may_wait(peer: Peer) -> None:
    data = peer.stuff()
    waiters = [gevent.spawn(peer.outbox.wait_below, limit) for limit in (0, BUFFER, 20 * BUFFER)]
    settle()
    peer.receive(len(data))
    assert [waiter.get(timeout=5) for waiter in waiters] == [True, True, True]


def vanish(peer: Peer) -> None:
    peer.theirs.close()
    peer.outbox.put(b"nobody is there")
    settle()


def close(peer: Peer) -> None:
    peer.outbox.close()


@pytest.mark.parametrize(("end", "broken"), [(vanish, 1), (close, 0)])
def test_the_end_wakes_who_waits_and_forgets_the_rest(peer: Peer, end: Callable[[Peer], None], broken: int) -> None:
    peer.stuff()
    waiter, other = gevent.spawn(peer.outbox.wait_below, 0), gevent.spawn(peer.outbox.wait_open, 0)
    settle()
    end(peer)
    with pytest.raises(Unavailable):
        waiter.get(timeout=5)
    other.get(timeout=5)
    peer.writes.clear()
    peer.outbox.put(b"too late")
    peer.outbox.flush()
    settle()
    assert (peer.outbox.unsent, peer.writes, peer.broken) == (0, [], broken)


def test_a_descriptor_that_somebody_else_got_meanwhile_is_not_written_to(peer: Peer) -> None:
    peer.stuff()
    peer.outbox.put(b"for the first")
    peer.outbox.close()
    number = peer.ours.fileno()
    peer.ours.close()
    ours, theirs = socket.socketpair()
    assert number in (ours.fileno(), theirs.fileno())
    settle()
    for one in (ours, theirs):
        one.setblocking(False)
        with pytest.raises(BlockingIOError):
            one.recv(1)
    ours.close()
    theirs.close()


def test_a_write_that_fails_at_the_end_of_a_turn_does_not_stop_the_others(peer: Peer) -> None:
    other = Peer()
    others_turn = Outbox(other.ours, peer.turn, peer.loop, other._broken)
    peer.theirs.close()
    peer.outbox.put(b"to nobody")
    others_turn.put(b"to somebody")
    settle()
    assert other.receive(11) == b"to somebody"
    assert peer.broken == 1
    other.close()


# The turn itself.


def test_what_a_turn_adds_to_itself_is_still_done_in_it_and_in_order() -> None:
    turn = Turn(gevent.get_hub().loop)
    done: list[str] = []

    def first() -> None:
        done.append("first")
        turn.add(lambda: done.append("third"))

    turn.add(first)
    turn.add(lambda: done.append("second"))
    assert done == []
    gevent.sleep(0)
    assert done == ["first", "second", "third"]
    turn.add(lambda: done.append("next"))
    gevent.sleep(0)
    assert done[3:] == ["next"]


def test_one_that_raises_is_logged_and_the_rest_of_the_turn_is_done(caplog: pytest.LogCaptureFixture) -> None:
    turn = Turn(gevent.get_hub().loop)
    done: list[str] = []
    turn.add(lambda: done.append(str(1 / 0)))
    turn.add(lambda: done.append("others"))
    gevent.sleep(0)
    assert done == ["others"]
    assert "ZeroDivisionError" in caplog.text
