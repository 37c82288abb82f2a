import asyncio
import socket

from hypothesis import given
from hypothesis import strategies as st

from procman.supervision.readiness import ReadyLine, wait_for_port


@given(st.integers(0, 30), st.integers(0, 30))
def test_the_line_is_found_however_it_arrives(first: int, second: int) -> None:
    text = b"building\nnow: compiled in 3 s"
    cuts = sorted((first, second))
    line = ReadyLine(r"compiled in \d+")
    found = [line.feed(text[a:b]) for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert any(found)


def test_other_lines_are_not_it_and_do_not_pile_up() -> None:
    line = ReadyLine("^ready$")
    assert not line.feed(b"not ready\n") and not line.feed(b"rea")
    for _ in range(10):
        assert not line.feed(b"x" * 50_000)
    assert len(line._partial) <= 64 * 1024
    assert not line.feed(b"dy\n") and line.feed(b"ready\n")


def test_a_port_is_waited_for_until_somebody_listens() -> None:
    async def scenario() -> None:
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            waiting = asyncio.ensure_future(wait_for_port(listening.getsockname()[1]))
            done, _ = await asyncio.wait([waiting], timeout=0.25)
            assert not done
            listening.listen()
            async with asyncio.timeout(5):
                await waiting

    asyncio.run(scenario())
