"""Does the pipe hold no more than it should, and lose nothing?"""

import asyncio

import pytest

from daybook_api.reports.streams import MAX_BUFFERED_BYTES, Pipe

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
    await pipe.ready()
    while piece := await pipe.read():
        largest = max(largest, pipe.held_bytes + len(piece))
        total += len(piece)
    await writing
    assert total == 100 * len(PIECE)
    assert MAX_BUFFERED_BYTES < largest <= MAX_BUFFERED_BYTES + len(PIECE)


async def test_a_failure_reaches_the_reader_behind_what_was_written() -> None:
    pipe = Pipe()
    await pipe.write(PIECE)
    pipe.end(RuntimeError("gone"))
    assert await pipe.read() == PIECE
    with pytest.raises(RuntimeError, match="gone"):
        await pipe.read()


async def test_what_failed_before_it_began_is_not_ready() -> None:
    pipe = Pipe()
    pipe.end(RuntimeError("gone"))
    with pytest.raises(RuntimeError, match="gone"):
        await pipe.ready()


async def test_a_small_document_is_ready_when_it_is_whole() -> None:
    pipe = Pipe()
    waiting = asyncio.create_task(pipe.ready())
    await pipe.write(b"small")
    await asyncio.sleep(0)
    assert not waiting.done()
    pipe.end()
    await waiting
    assert [await pipe.read(), await pipe.read()] == [b"small", b""]
