"""How bodies are framed, sans-IO: however the bytes fall, the same body comes out, and nothing of what follows is lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import BadRequest, TooLarge
from app.gateway.chunked import CHUNKED, Chunks, Whole, length_of

POST = b"POST /tasks HTTP/1.1"


def encode(chunks: list[bytes]) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


def feed(decoder: Chunks | Whole, data: bytes, cuts: list[int]) -> tuple[bytes, bytes]:
    """Body and rest, where what is left once the body is whole is put behind it."""
    places = sorted({min(cut, len(data)) for cut in cuts} | {len(data)})
    start = 0
    for place in places:
        if decoder.feed(data[start:place]):
            body, rest = decoder.split()
            return body, rest + data[place:]
        start = place
    raise AssertionError("not whole")


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=20), st.lists(st.integers(0, 900), max_size=10), st.binary(max_size=20))
def test_chunks_come_out_whole_wherever_they_are_cut(chunks: list[bytes], cuts: list[int], rest: bytes) -> None:
    assert feed(Chunks(1000), encode(chunks) + rest, cuts) == (b"".join(chunks), rest)


@given(st.binary(min_size=1, max_size=100), st.lists(st.integers(0, 120), max_size=10), st.binary(max_size=20))
def test_a_body_of_known_length_ends_there(body: bytes, cuts: list[int], rest: bytes) -> None:
    assert feed(Whole(len(body), 100), body + rest, cuts) == (body, rest)


@given(st.binary(max_size=200))
def test_whatever_comes_is_a_body_or_refused(data: bytes) -> None:
    decoder = Chunks(50)
    try:
        for place in range(len(data)):
            if decoder.feed(data[place : place + 1]):
                break
    except (BadRequest, TooLarge):
        return
    assert len(decoder.split()[0]) <= 50


def test_a_body_past_its_limit_is_refused_before_it_has_come() -> None:
    with pytest.raises(TooLarge):
        Whole(101, 100)
    with pytest.raises(TooLarge):
        Chunks(100).feed(b"65\r\n")
    assert Chunks(100).feed(b"64\r\n") is False


@pytest.mark.parametrize(
    ("fields", "length"),
    [
        ([], 0),
        ([b"Content-Length: 0"], 0),
        ([b"content-length:17"], 17),
        ([b"Content-Length: \t17 "], 17),
        ([b"Transfer-Encoding: Chunked"], CHUNKED),
    ],
)
def test_a_head_says_how_long_its_body_is(fields: list[bytes], length: int) -> None:
    assert length_of([POST, *fields]) == length
