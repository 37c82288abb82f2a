import asyncio
import os
import socket
from pathlib import Path

from procman.supervision import console
from procman.supervision.console import HIGH_WATER, LOW_WATER, Console


class Told:
    """What a console has said."""

    def __init__(self) -> None:
        self.drained = self.broken = 0

    def on_drained(self) -> None:
        self.drained += 1

    def on_broken(self) -> None:
        self.broken += 1

    def console(self, fd: int) -> Console:
        return Console(fd, self.on_drained, self.on_broken)


async def read_all(fd: int, size: int) -> bytes:
    """Read *size* bytes while the loop runs."""
    data = b""
    loop = asyncio.get_running_loop()
    while len(data) < size:
        readable = loop.create_future()
        loop.add_reader(fd, readable.set_result, None)
        await asyncio.wait_for(readable, 10)
        loop.remove_reader(fd)
        data += os.read(fd, 65536)
    return data


def test_a_full_pipe_says_so_loses_nothing_and_tells_when_it_has_room() -> None:
    read, write = os.pipe()
    told = Told()

    async def scenario() -> None:
        out = told.console(write)
        sent = b""
        number = 0
        while not out.is_full:
            block = b"%07d\n" % number * 4096
            out.write(block)
            sent += block
            number += 1
            assert len(sent) < HIGH_WATER * 2
        assert told.drained == 0
        assert await read_all(read, len(sent)) == sent
        assert not out.is_full and told.drained == 1
        out.close()

    asyncio.run(scenario())
    # The descriptor that others share was not switched to non-blocking.
    assert os.get_blocking(write)
    os.close(read)
    os.close(write)


def test_room_is_told_below_the_low_water_mark_only() -> None:
    read, write = os.pipe()
    told = Told()

    async def scenario() -> None:
        out = told.console(write)
        out.write(b"x" * (HIGH_WATER + LOW_WATER))
        assert out.is_full
        await read_all(read, LOW_WATER)
        assert out.is_full and told.drained == 0
        await read_all(read, HIGH_WATER)
        assert told.drained == 1
        out.close()

    asyncio.run(scenario())
    os.close(read)
    os.close(write)


def test_a_closed_pipe_is_told_once_and_later_writes_are_dropped() -> None:
    read, write = os.pipe()
    told = Told()

    async def scenario() -> None:
        out = told.console(write)
        os.close(read)
        out.write(b"x")
        out.write(b"y")
        assert out.broken
        out.close()

    asyncio.run(scenario())
    assert told.broken == 1
    os.close(write)


def test_a_file_is_written_at_its_end(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file:
        file.write(b"first\n")
        file.flush()

        async def scenario() -> None:
            out = Told().console(file.fileno())
            out.write(b"second\n")
            out.close()

        asyncio.run(scenario())
    assert path.read_bytes() == b"first\nsecond\n"


def test_a_socket_takes_what_it_can_without_blocking() -> None:
    ours, theirs = socket.socketpair()

    async def scenario() -> None:
        out = Told().console(ours.fileno())
        out.write(b"z" * 3_000_000)
        assert len(await read_all(theirs.fileno(), 3_000_000)) == 3_000_000
        out.close()

    asyncio.run(scenario())
    assert ours.getblocking()
    ours.close()
    theirs.close()


def test_closing_waits_for_a_slow_reader_only_so_long() -> None:
    read, write = os.pipe()
    console.FLUSH_TIMEOUT, before = 0.05, console.FLUSH_TIMEOUT
    try:

        async def scenario() -> float:
            out = Told().console(write)
            out.write(b"x" * 500_000)
            started = asyncio.get_running_loop().time()
            out.close()
            return asyncio.get_running_loop().time() - started

        assert 0.04 < asyncio.run(scenario()) < 1.0
    finally:
        console.FLUSH_TIMEOUT = before
        os.close(read)
        os.close(write)
