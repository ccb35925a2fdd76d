"""Unit tests of the pipe between Postgres and a client."""

import asyncio

import pytest

from daybook_api.pipe import MAX_BUFFERED_BYTES, Pipe

PIECE = b"x" * 100_000


async def _fill(pipe: Pipe, pieces: int) -> None:
    for _ in range(pieces):
        await pipe.write(PIECE)
    pipe.end()


async def test_the_writer_waits_for_the_reader() -> None:
    pipe = Pipe()
    writing = asyncio.create_task(_fill(pipe, 100))
    largest = 0
    total = 0
    await pipe.wait_for_first_chunk()
    while piece := await pipe.read():
        largest = max(largest, pipe.buffered_bytes + len(piece))
        total += len(piece)
    await writing
    assert total == 100 * len(PIECE)
    assert MAX_BUFFERED_BYTES < largest <= MAX_BUFFERED_BYTES + len(PIECE)


async def test_an_error_reaches_the_reader_after_the_written_pieces() -> None:
    pipe = Pipe()
    await pipe.write(PIECE)
    pipe.end(RuntimeError("gone"))
    assert await pipe.read() == PIECE
    with pytest.raises(RuntimeError, match="gone"):
        await pipe.read()


async def test_an_error_before_the_first_piece_is_raised() -> None:
    pipe = Pipe()
    pipe.end(RuntimeError("gone"))
    with pytest.raises(RuntimeError, match="gone"):
        await pipe.wait_for_first_chunk()


async def test_a_small_document_is_readable_when_it_is_complete() -> None:
    pipe = Pipe()
    waiting = asyncio.create_task(pipe.wait_for_first_chunk())
    await pipe.write(b"small")
    await asyncio.sleep(0)
    assert not waiting.done()
    pipe.end()
    await waiting
    assert [await pipe.read(), await pipe.read()] == [b"small", b""]
