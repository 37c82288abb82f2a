import pytest
from hypothesis import given
from hypothesis import strategies as st

from procman.supervision.output import MAX_LINE, SYSTEM, LineStream, build_prefix, prefix_lines

PREFIX = b"w | "


def through(chunks: list[bytes]) -> list[bytes]:
    """The lines that come out, without their prefixes."""
    stream = LineStream()
    blocks = [*map(stream.feed, chunks), stream.flush()]
    assert all(block.endswith(b"\n") for block in blocks if block)
    out = b"".join(prefix_lines(PREFIX, block) for block in blocks if block)
    lines = out.split(b"\n")[:-1]
    assert all(line.startswith(PREFIX) for line in lines)
    return [line.removeprefix(PREFIX) for line in lines]


@given(st.lists(st.binary(max_size=60) | st.just(b"\n") | st.just(b"\r\n")))
def test_any_bytes_in_any_chunks_come_out_line_by_line_intact_and_in_order(chunks: list[bytes]) -> None:
    data = b"".join(chunks)
    expected = data.split(b"\n")
    if expected[-1] == b"":
        expected.pop()
    if b"\x1b[" not in data:
        assert through(chunks) == [line.removesuffix(b"\r") for line in expected]


@given(st.binary(min_size=1, max_size=400), st.data())
def test_chunking_makes_no_difference(data: bytes, choice: st.DataObject) -> None:
    cuts = sorted(choice.draw(st.lists(st.integers(0, len(data)), max_size=5)))
    chunks = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    assert through(chunks) == through([data])


def test_only_a_line_feed_ends_a_line() -> None:
    text = '{"a": "\u2028\u0085\x0b\x0c"}'.encode()
    assert through([text + b"\n"]) == [text]


def test_a_bare_carriage_return_stays() -> None:
    assert through([b" 10 %\r 20 %\n"]) == [b" 10 %\r 20 %"]


def test_one_carriage_return_before_the_line_end_goes() -> None:
    assert through([b"a\r\r\nb\r", b"\nc"]) == [b"a\r", b"b", b"c"]


@pytest.mark.parametrize("size", [MAX_LINE - 1, MAX_LINE, MAX_LINE + 1, 3 * MAX_LINE + 7])
def test_long_lines_are_cut_into_pieces_that_are_complete(size: int) -> None:
    line = bytes(65 + n % 26 for n in range(size))
    for chunk in (1000, MAX_LINE, 5 * MAX_LINE):
        data = b"before\n" + line + b"\nafter\n"
        pieces = through([data[n : n + chunk] for n in range(0, len(data), chunk)])
        assert pieces[0] == b"before" and pieces[-1] == b"after"
        assert b"".join(pieces[1:-1]) == line
        assert max(map(len, pieces)) <= MAX_LINE


def test_a_line_without_end_does_not_pile_up() -> None:
    stream = LineStream()
    written = sum(len(stream.feed(b"x" * 10_000)) for _ in range(100))
    assert 1_000_000 - written <= MAX_LINE + 1


def test_what_waits_is_flushed_once() -> None:
    stream = LineStream()
    assert stream.feed(b"prompt> ") == b""
    assert stream.has_partial
    assert stream.flush() == b"prompt> \n"
    assert stream.flush() == b"" and not stream.has_partial


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"\x1b[31mred", b"\x1b[31mred\x1b[0m"),
        (b"\x1b[31mred\x1b[0m", b"\x1b[31mred\x1b[0m"),
        (b"\x1b[31mred\x1b[m", b"\x1b[31mred\x1b[m"),
        (b"\x1b[1;31mred\x1b[0;0m plain", b"\x1b[1;31mred\x1b[0;0m plain"),
        (b"\x1b[0mthen\x1b[4mline", b"\x1b[0mthen\x1b[4mline\x1b[0m"),
        (b"\x1b[2K cleared", b"\x1b[2K cleared"),
    ],
)
def test_colors_end_with_their_line(line: bytes, expected: bytes) -> None:
    assert prefix_lines(PREFIX, line + b"\n") == PREFIX + expected + b"\n"


def test_prefixes_are_aligned_and_name_the_supervisor_system() -> None:
    assert [build_prefix(name, 0, 11, color=False) for name in ("layer", "interface.1", SYSTEM)] == [
        b"layer       | ", b"interface.1 | ", b"system      | "
    ]  # fmt: skip


def test_each_process_has_a_color_of_its_own() -> None:
    prefixes = [build_prefix(name, at, 8, color=True) for at, name in enumerate(("worker.1", "worker.2", SYSTEM))]
    assert all(prefix.endswith(b"\x1b[0m") for prefix in prefixes)
    assert len({prefix[:5] for prefix in prefixes}) == 3
