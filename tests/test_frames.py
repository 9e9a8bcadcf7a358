"""The frame codec: what RFC 6455 allows comes out whole, what it forbids gets the code that it earns, in time linear in the bytes."""

import itertools
import struct
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.gateway.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    MAX_FRAGMENTS,
    PING,
    PONG,
    TEXT,
    FrameBuffer,
    FrameError,
    Message,
    encode_close,
    encode_frame,
    is_close_code,
    parse_close,
)
from tests.rawclient import announced, client_frame, text_frame

LIMIT = 65536
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # others may want the processor as well


def fault(*frames: bytes, limit: int = LIMIT) -> int:
    """The code that these bytes earn."""
    buffer = FrameBuffer(limit)
    _, code = outcome(buffer, list(frames))
    assert code is not None, "no fault was found"
    assert buffer.ended
    return code


def outcome(buffer: FrameBuffer, pieces: list[bytes]) -> tuple[list[Message], int | None]:
    """What came out, and the code of the fault that ended it."""
    messages: list[Message] = []
    try:
        for piece in pieces:
            messages += buffer.feed(piece)
    except FrameError as error:
        return messages, error.code
    return messages, None if buffer.error is None else buffer.error.code


@st.composite
def message_in_frames(draw: st.DrawFn) -> tuple[list[bytes], list[Message]]:
    """One message, cut into fragments anywhere (within a character too), with pings and pongs between them."""
    text = draw(st.booleans())
    payload = draw(st.text(max_size=400)).encode() if text else draw(st.binary(max_size=2000))
    cuts = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=5)))
    pieces = [payload[start:end] for start, end in zip([0, *cuts], [*cuts, len(payload)], strict=True)]
    frames: list[bytes] = []
    expected: list[Message] = []
    for number, piece in enumerate(pieces):
        if draw(st.booleans()):
            control = (draw(st.sampled_from([PING, PONG])), draw(st.binary(max_size=125)))
            expected.append(control)
            frames.append(client_frame(*control))
        opcode = CONTINUATION if number else TEXT if text else BINARY
        frames.append(client_frame(opcode, piece, final=number == len(pieces) - 1))
    expected.append((TEXT, payload.decode()) if text else (BINARY, payload))
    return frames, expected


def in_pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


@given(st.lists(message_in_frames(), max_size=4), st.lists(st.integers(0, 1 << 20), max_size=20))
@unhurried
def test_messages_come_out_whole_and_in_order_however_the_stream_is_cut(
    messages: list[tuple[list[bytes], list[Message]]], cuts: list[int]
) -> None:
    data = b"".join(frame for frames, _ in messages for frame in frames)
    buffer = FrameBuffer(LIMIT)
    found = [message for piece in in_pieces(data, cuts) for message in buffer.feed(piece)]
    assert found == [message for _, expected in messages for message in expected]
    assert buffer.error is None


@given(message_in_frames())
@unhurried
def test_a_stream_that_comes_a_byte_at_a_time_is_read_as_well(message: tuple[list[bytes], list[Message]]) -> None:
    frames, expected = message
    buffer = FrameBuffer(LIMIT)
    assert [found for byte in b"".join(frames) for found in buffer.feed(bytes([byte]))] == expected


@given(st.binary(max_size=400), st.lists(st.integers(0, 1 << 20), max_size=4))
@unhurried
def test_garbage_ends_in_messages_or_in_a_close_code_and_never_in_anything_else(data: bytes, cuts: list[int]) -> None:
    messages, code = outcome(FrameBuffer(200), in_pieces(data, cuts))
    assert code in (None, 1002, 1007, 1009)
    for opcode, payload in messages:
        assert isinstance(payload, str if opcode == TEXT else bytes)
        assert len(payload) <= 200


@given(st.binary(max_size=400))
@unhurried
def test_a_fault_is_the_same_wherever_the_stream_is_cut(data: bytes) -> None:
    assert outcome(FrameBuffer(200), [data]) == outcome(FrameBuffer(200), [bytes([byte]) for byte in data])


@given(st.integers(0, 70000), st.binary(min_size=4, max_size=4))
@settings(max_examples=40, deadline=None)
def test_payloads_of_every_length_are_unmasked_rightly(length: int, mask: bytes) -> None:
    payload = bytes(index * 7 & 0xFF for index in range(length))
    frame = client_frame(BINARY, payload, mask=mask)
    assert FrameBuffer(1 << 20).feed(frame + frame) == [(BINARY, payload)] * 2


@pytest.mark.parametrize("length", [0, 1, 2, 3, 4, 5, 124, 125, 126, 127, 1023, 1024, 1025, 65535, 65536])
def test_texts_around_each_change_of_form_come_through(length: int) -> None:
    text = "ж" * (length // 2) + "x" * (length % 2)
    assert FrameBuffer(1 << 20).feed(text_frame(text) * 3) == [(TEXT, text)] * 3


@given(st.sampled_from([TEXT, BINARY, PING, PONG]), st.binary(max_size=125))
@unhurried
def test_what_is_encoded_is_read_by_a_client(opcode: int, payload: bytes) -> None:
    if opcode == TEXT:
        payload = payload.decode("latin-1").encode()
    frame = encode_frame(opcode, payload)
    assert FrameBuffer(LIMIT, require_mask=False).feed(frame) == [(opcode, payload.decode() if opcode == TEXT else payload)]


@pytest.mark.parametrize("length", [0, 125, 126, 65535, 65536])
def test_each_length_is_encoded_in_its_shortest_form(length: int) -> None:
    frame = encode_frame(BINARY, bytes(length))
    assert len(frame) == length + (2 if length < 126 else 4 if length < 65536 else 10)
    assert FrameBuffer(1 << 20, require_mask=False).feed(frame) == [(BINARY, bytes(length))]


@pytest.mark.parametrize("payload", [b"", b"x", b"x" * 200, b"x" * 65536])
def test_an_unmasked_frame_of_a_client_is_1002(payload: bytes) -> None:
    assert fault(client_frame(TEXT, payload, mask=b"")) == 1002


def test_a_masked_frame_of_a_server_is_1002() -> None:
    with pytest.raises(FrameError, match="must not be masked"):
        FrameBuffer(LIMIT, require_mask=False).feed(text_frame("x" * 200))


@pytest.mark.parametrize("reserved", range(1, 8))
def test_reserved_bits_are_1002(reserved: int) -> None:
    assert fault(client_frame(TEXT, b"hello", reserved=reserved)) == 1002


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
def test_reserved_opcodes_are_1002(opcode: int) -> None:
    assert fault(client_frame(opcode, b"hello")) == 1002


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
def test_control_frames_that_are_too_long_or_in_fragments_are_1002(opcode: int) -> None:
    assert fault(client_frame(opcode, b"x" * 126)) == 1002
    assert fault(client_frame(opcode, b"x" * 126)[:2]) == 1002
    assert fault(client_frame(opcode, final=False)) == 1002


def test_fragments_out_of_order_are_1002() -> None:
    assert fault(client_frame(CONTINUATION, b"x")) == 1002
    assert fault(client_frame(TEXT, b"x", final=False), text_frame("y")) == 1002
    assert fault(client_frame(TEXT, b"x", final=False), client_frame(BINARY, b"y" * 200)) == 1002


@pytest.mark.parametrize("length", [LIMIT + 1, 1 << 31, 1 << 33, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_a_header_that_announces_too_much_is_1009_before_any_payload(length: int) -> None:
    assert fault(announced(TEXT, length)) == 1009
    assert fault(*(bytes([byte]) for byte in announced(BINARY, length)[:10])) == 1009


def test_a_message_of_exactly_the_limit_is_taken_and_one_byte_more_is_1009() -> None:
    assert FrameBuffer(LIMIT).feed(client_frame(TEXT, b"x" * LIMIT)) == [(TEXT, "x" * LIMIT)]
    assert FrameBuffer(200).feed(client_frame(TEXT, b"x" * 200)) == [(TEXT, "x" * 200)]
    assert fault(client_frame(TEXT, b"x" * 201), limit=200) == 1009
    assert fault(client_frame(TEXT, b"x" * 21), limit=20) == 1009


def test_fragments_that_add_up_past_the_limit_are_1009() -> None:
    first, more = client_frame(BINARY, bytes(LIMIT // 2), final=False), client_frame(CONTINUATION, bytes(LIMIT // 2), final=False)
    assert fault(first, more, announced(CONTINUATION, 1)) == 1009
    assert FrameBuffer(LIMIT).feed(first + more + client_frame(CONTINUATION)) == [(BINARY, bytes(LIMIT))]


def test_the_total_starts_again_with_every_message() -> None:
    parts = client_frame(BINARY, bytes(LIMIT // 2), final=False) + client_frame(CONTINUATION, bytes(LIMIT // 2))
    assert len(FrameBuffer(LIMIT).feed(parts * 5)) == 5


def test_endless_empty_fragments_are_1009() -> None:
    frames = [client_frame(TEXT, final=False)] + [client_frame(CONTINUATION, final=False)] * MAX_FRAGMENTS
    assert fault(b"".join(frames)) == 1009


@pytest.mark.parametrize("bad", [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"abc\xe2\x82", b"\xe2\x28\xa1"])
def test_text_that_is_not_utf8_is_1007(bad: bytes) -> None:
    assert fault(client_frame(TEXT, bad)) == 1007
    assert fault(client_frame(TEXT, b"x" * 200 + bad)) == 1007
    assert fault(client_frame(TEXT, b"x" * 70000 + bad), limit=1 << 20) == 1007
    assert fault(client_frame(TEXT, b"x", final=False), client_frame(CONTINUATION, bad)) == 1007


def test_bad_utf8_fails_at_its_fragment_and_not_at_the_end_of_the_message() -> None:
    assert fault(client_frame(TEXT, b"ok \xce", final=False), client_frame(CONTINUATION, b"x", final=False)) == 1007


def test_what_came_before_a_fault_comes_out_first() -> None:
    buffer = FrameBuffer(LIMIT)
    assert buffer.feed(text_frame("one") + text_frame("two") + b"\xff\xff") == [(TEXT, "one"), (TEXT, "two")]
    assert buffer.attention
    assert buffer.error is not None
    with pytest.raises(FrameError):
        buffer.feed(b"")


def test_attention_is_asked_for_control_frames_and_not_for_data() -> None:
    buffer = FrameBuffer(LIMIT)
    asked = []
    for frames in (text_frame("x") + client_frame(BINARY, b"y"), text_frame("x") + client_frame(PING), text_frame("x")):
        buffer.feed(frames)
        asked.append(buffer.attention)
    assert asked == [False, True, False]


def test_after_a_close_frame_nothing_more_comes_out() -> None:
    buffer = FrameBuffer(LIMIT)
    assert buffer.feed(client_frame(CLOSE, b"\x03\xe8") + text_frame("late") + b"\xff\xff") == [(CLOSE, b"\x03\xe8")]
    assert buffer.feed(text_frame("later")) == []
    assert buffer.attention
    assert buffer.error is None


def test_exactly_the_codes_that_may_be_sent_are_taken() -> None:
    allowed = {code for code in range(65536) if is_close_code(code)}
    assert allowed == {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535])
def test_a_close_frame_with_a_code_that_may_not_be_sent_is_1002(code: int) -> None:
    assert fault(client_frame(CLOSE, struct.pack("!H", code))) == 1002
    with pytest.raises(ValueError, match=str(code)):
        encode_close(code)


def test_a_close_frame_with_half_a_code_is_1002_and_with_a_bad_reason_1007() -> None:
    assert fault(client_frame(CLOSE, b"\x03")) == 1002
    assert fault(client_frame(CLOSE, b"\x03\xe8\xff")) == 1007


def test_a_close_frame_says_its_code_and_its_reason() -> None:
    frame = encode_close(1013, "später")
    assert FrameBuffer(LIMIT, require_mask=False).feed(frame) == [(CLOSE, b"\x03\xf5" + "später".encode())]
    assert parse_close(frame[2:]) == (1013, "später")
    assert parse_close(encode_frame(CLOSE, b"")[2:]) == (1005, "")


def test_a_long_reason_is_cut_between_characters() -> None:
    frame = encode_close(1000, "ж" * 200)
    assert parse_close(frame[2:]) == (1000, "ж" * 61)


def test_a_message_that_trickles_in_costs_time_in_proportion_to_its_bytes() -> None:
    def trickle(size: int) -> float:
        buffer = FrameBuffer(1 << 23)
        frame = announced(BINARY, size)
        buffer.feed(frame)
        start = time.process_time()
        for _ in range(size // 16):
            messages = buffer.feed(b"0123456789abcdef")
        assert len(messages) == 1
        return time.process_time() - start

    small, large = min(trickle(1 << 19) for _ in range(3)), trickle(1 << 22)
    assert large < small * 8 * 6  # 8 times the bytes; quadratic would be 64 times the time
