"""Many processes' bytes -> prefixed, colored lines.

Pure: bytes in, bytes out. ``engine.py`` reads the pipes and ``console.py`` writes. Lines end at ``\\n`` only (JSON may
hold U+2028, a progress bar bare ``\\r``); every other byte is passed on as it came. Buffers at most one line of
``MAX_LINE`` bytes per process.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

MAX_LINE = 1024 * 1024  # bytes; a longer line is cut into pieces of this size, each with its prefix
# What a process has written without a line end (a prompt) is shown after this many seconds.
PARTIAL_DELAY = 0.2

_SGR = re.compile(rb"\x1b\[([0-9;:]*)m")
_RESET = b"\x1b[0m"
# Readable on dark and on light backgrounds; red is left for errors.
_COLORS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
SYSTEM = "system"


def build_prefixes(names: Sequence[str], color: bool) -> dict[str, bytes]:
    """Name -> the bytes in front of each of its lines, aligned; the supervisor's own name is ``system``."""
    width = max(len(name) for name in (*names, SYSTEM))
    return {name: build_prefix(name, number, width, color) for number, name in enumerate((*names, SYSTEM))}


def build_prefix(name: str, number: int, width: int, color: bool) -> bytes:
    """The bytes in front of each line of *name*, at least *width* characters and a bar; *number* chooses the color."""
    text = f"{name:<{width}} | ".encode()
    if not color:
        return text
    code = 1 if name == SYSTEM else _COLORS[number % len(_COLORS)]
    return b"\x1b[%dm%s\x1b[0m" % (code, text)


def prefix_lines(prefix: bytes, body: bytes) -> bytes:
    """*body*, whole lines without the last line end, with *prefix* before each; ends with a line end."""
    if b"\r" not in body and b"\x1b" not in body:
        # The fast path, several hundred MB/s: no work per line in Python.
        return prefix + body.replace(b"\n", b"\n" + prefix) + b"\n"
    lines = body.split(b"\n")
    return b"".join(b"%s%s\n" % (prefix, _finish_line(line)) for line in lines)


def _finish_line(line: bytes) -> bytes:
    """*line* without one ``\\r`` at its end, and with its colors switched off where it left them on."""
    if line.endswith(b"\r"):
        line = line[:-1]
    if b"\x1b[" in line:
        codes = _SGR.findall(line)
        # ESC[m and ESC[...;0m reset; anything else lasts beyond the line end, into the next process's prefix.
        if codes and codes[-1].replace(b":", b";").rpartition(b";")[2].strip(b"0"):
            line += _RESET
    return line


class LineStream:
    """One process's output: chunks in, prefixed whole lines out."""

    __slots__ = ("_partial", "prefix")

    def __init__(self, prefix: bytes) -> None:
        self.prefix = prefix
        self._partial = b""

    @property
    def has_partial(self) -> bool:
        """Whether bytes wait for the end of their line."""
        return bool(self._partial)

    def feed(self, data: bytes) -> bytes:
        """The lines that *data* completes, ready to write."""
        if len(data) <= MAX_LINE:
            return self._feed(data)
        return b"".join(self._feed(data[start : start + MAX_LINE]) for start in range(0, len(data), MAX_LINE))

    def _feed(self, data: bytes) -> bytes:
        end = data.rfind(b"\n")
        if end < 0:
            self._partial += data
            return self._cut()
        body = self._partial + data[:end] if self._partial else data[:end]
        self._partial = data[end + 1 :]
        # Only the first line can be too long: the others lie inside data, which is no longer than one line may be.
        out = b""
        first = body.find(b"\n")
        while (first if first >= 0 else len(body)) > MAX_LINE:
            out += prefix_lines(self.prefix, body[:MAX_LINE])
            body = body[MAX_LINE:]
            first = body.find(b"\n")
        return out + prefix_lines(self.prefix, body)

    def _cut(self) -> bytes:
        """Pieces of a line that is too long already; the rest waits."""
        out = b""
        # One byte more than the limit may wait: it may be the \r before the line end.
        while len(self._partial) > MAX_LINE + 1:
            out += prefix_lines(self.prefix, self._partial[:MAX_LINE])
            self._partial = self._partial[MAX_LINE:]
        return out

    def flush(self) -> bytes:
        """What waits for a line end, as a line of its own; empty if nothing does."""
        if not self._partial:
            return b""
        body, self._partial = self._partial, b""
        out = b""
        while len(body) > MAX_LINE:
            out += prefix_lines(self.prefix, body[:MAX_LINE])
            body = body[MAX_LINE:]
        return out + prefix_lines(self.prefix, body)
