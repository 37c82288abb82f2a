"""Many processes' bytes -> prefixed, colored lines.

Pure: bytes in, bytes out. ``pipes.py`` reads, ``mergedlog.py`` passes on and ``console.py`` writes. Lines end at
``\\n`` only (JSON may hold U+2028, a progress bar bare ``\\r``); every other byte is passed on as it came. Buffers at
most one line of ``MAX_LINE`` bytes per process.
"""

from __future__ import annotations

import re

MAX_LINE = 1024 * 1024  # bytes; a longer line is cut into pieces of this size, each with its prefix
# What a process has written without a line end (a prompt) is shown after this many seconds.
PARTIAL_DELAY = 0.2

_SGR = re.compile(rb"\x1b\[([0-9;:]*)m")
_RESET = b"\x1b[0m"
# Readable on dark and on light backgrounds; red is left for errors.
_COLORS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
SYSTEM = "system"


def build_prefix(name: str, number: int, width: int, color: bool) -> bytes:
    """The bytes in front of each line of *name*, at least *width* characters and a bar; *number* chooses the color."""
    text = f"{name:<{width}} | ".encode()
    if not color:
        return text
    code = 1 if name == SYSTEM else _COLORS[number % len(_COLORS)]
    return b"\x1b[%dm%s\x1b[0m" % (code, text)


def prefix_lines(prefix: bytes, lines: bytes) -> bytes:
    """*lines*, each with its line end, with *prefix* before each."""
    if b"\r" not in lines and b"\x1b" not in lines:
        # The fast path, several hundred MB/s: no work per line in Python.
        return prefix + lines[:-1].replace(b"\n", b"\n" + prefix) + b"\n"
    return b"".join(b"%s%s\n" % (prefix, _finish_line(line)) for line in lines[:-1].split(b"\n"))


def strip_colors(text: bytes) -> bytes:
    """*text* without colors."""
    return _SGR.sub(b"", text) if b"\x1b" in text else text


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
    """One process's output: chunks in, whole lines out, each with its line end and no longer than *max_line* bytes."""

    __slots__ = ("_max_line", "_partial")

    def __init__(self, max_line: int = MAX_LINE) -> None:
        self._max_line = max_line
        self._partial = b""

    @property
    def has_partial(self) -> bool:
        """Whether bytes wait for the end of their line."""
        return bool(self._partial)

    def feed(self, data: bytes) -> bytes:
        """The lines that *data* completes; b"" if there are none."""
        if len(data) <= self._max_line:
            return self._feed(data)
        size = self._max_line
        return b"".join(self._feed(data[start : start + size]) for start in range(0, len(data), size))

    def _feed(self, data: bytes) -> bytes:
        end = data.rfind(b"\n") + 1
        if not end:
            self._partial += data
            return self._cut()
        lines = self._partial + data[:end] if self._partial else data[:end]
        self._partial = data[end:]
        # Only the first line can be too long: the others lie inside data, which is no longer than one line may be.
        out = b""
        while lines.find(b"\n") > self._max_line:
            out += lines[: self._max_line] + b"\n"
            lines = lines[self._max_line :]
        return out + lines

    def _cut(self) -> bytes:
        """Pieces of a line that is too long already; the rest waits."""
        out = b""
        # One byte more than the limit may wait: it may be the \r before the line end.
        while len(self._partial) > self._max_line + 1:
            out += self._partial[: self._max_line] + b"\n"
            self._partial = self._partial[self._max_line :]
        return out

    def flush(self) -> bytes:
        """What waits for a line end, as a line of its own; b"" if nothing does."""
        if not self._partial:
            return b""
        line, self._partial = self._partial, b""
        out = b""
        while len(line) > self._max_line:
            out += line[: self._max_line] + b"\n"
            line = line[self._max_line :]
        return out + line + b"\n"
