import asyncio
import os
from collections.abc import Callable

from procman.clock import SystemClock
from procman.settings import SupervisorSettings
from procman.supervision.logformat import Voice
from procman.supervision.logring import LogRing
from procman.supervision.mergedlog import MergedLog
from procman.supervision.output import PARTIAL_DELAY
from procman.supervision.pipes import OutputPipes


class Page:
    """A console that keeps what it is given, and is full when told."""

    def __init__(self) -> None:
        self.text = b""
        self.is_full = False

    def write(self, data: bytes) -> None:
        self.text += data


def merged(page: Page) -> MergedLog:
    return MergedLog(page, LogRing(), SupervisorSettings(), SystemClock(), [], color=False)  # type: ignore[arg-type]


async def until(predicate: Callable[[], bool]) -> None:
    """Let the loop run until *predicate* is true, for ten seconds at most."""
    loop = asyncio.get_running_loop()
    end = loop.time() + 10
    while not predicate():
        assert loop.time() < end
        turn = loop.create_future()
        loop.call_later(0.005, turn.set_result, None)
        await turn


def test_each_process_has_its_own_lines_until_its_pipe_ends() -> None:
    async def scenario() -> bytes:
        page = Page()
        pipes = OutputPipes(merged(page))
        writers = []
        for prefix in (b"a | ", b"b | "):
            read, write = os.pipe()
            pipes.add(read, Voice(prefix.decode(), prefix))
            writers.append(write)
        os.write(writers[0], b"one\ntw")
        await until(lambda: b"one" in page.text)
        os.write(writers[1], b"other\n")
        await until(lambda: b"other" in page.text)
        os.write(writers[0], b"o\nthree")
        for write in writers:
            os.close(write)
        await until(lambda: b"three\n" in page.text)
        pipes.close()
        return page.text

    assert asyncio.run(scenario()) == b"a | one\nb | other\na | two\na | three\n"


def test_a_full_console_stops_the_reading_and_resume_goes_on() -> None:
    async def scenario() -> None:
        page = Page()
        pipes = OutputPipes(merged(page))
        read, write = os.pipe()
        pipes.add(read, Voice("a", b"a | "))
        page.is_full = True
        os.write(write, b"first\n")
        await until(lambda: b"first" in page.text)
        os.write(write, b"second\n")
        turn = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.05, turn.set_result, None)
        await turn
        assert b"second" not in page.text
        page.is_full = False
        pipes.resume()
        await until(lambda: b"second" in page.text)
        os.close(write)
        pipes.close()

    asyncio.run(scenario())


def test_a_prompt_appears_after_a_moment() -> None:
    async def scenario() -> None:
        page = Page()
        pipes = OutputPipes(merged(page))
        read, write = os.pipe()
        pipes.add(read, Voice("a", b"a | "))
        started = asyncio.get_running_loop().time()
        os.write(write, b"prompt> ")
        await until(lambda: page.text == b"a | prompt> \n")
        assert asyncio.get_running_loop().time() - started >= PARTIAL_DELAY * 0.9
        os.close(write)
        pipes.close()

    asyncio.run(scenario())


def test_the_last_words_of_one_process_can_be_had_at_once() -> None:
    async def scenario() -> None:
        page = Page()
        pipes = OutputPipes(merged(page))
        read, write = os.pipe()
        voice = Voice("a", b"a | ")
        pipes.add(read, voice)
        os.write(write, b"last words\n")
        pipes.drain(Voice("a", b"a | "))
        assert page.text == b""
        pipes.drain(voice)
        assert page.text == b"a | last words\n"
        os.close(write)
        pipes.close()

    asyncio.run(scenario())
