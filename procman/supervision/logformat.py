"""Lines of processes -> lines of the merged log: text with a prefix, JSON objects or logfmt, of a level or above.

Pure but for the clock. A process may print JSON objects itself (this project's own do where the format is not text):
their fields are kept. Of other lines the level is the word that they begin with; the lines of a traceback have that of
the line before it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from procman.log import stamp, to_json
from procman.supervision.output import prefix_lines, strip_colors

LEVELS = ("debug", "info", "warning", "error")
TEXT, JSON, LOGFMT = "text", "json", "logfmt"
_WORDS = {
    b"DEBUG": "debug", b"INFO": "info", b"NOTICE": "info", b"WARN": "warning", b"WARNING": "warning",
    b"ERROR": "error", b"CRITICAL": "error", b"FATAL": "error",
}  # fmt: skip
# At the beginning, or behind a time and the like; always in capitals.
_LEVEL = re.compile(rb"(?:^|[\s\[|:<-])(DEBUG|INFO|NOTICE|WARN|WARNING|ERROR|CRITICAL|FATAL)(?=$|[\s\]|:>])")
_LEVEL_WITHIN = 48  # bytes
_TRACEBACK = b"Traceback (most recent call last)"
_LOGFMT_LEVEL = re.compile(rb"^time=\S+ process=\S+ level=(debug|info|warning|error) ")
_PLAIN = re.compile(r"[!#-<>-\[\]-~]+")  # what logfmt needs no quotes for


class LevelReader:
    """The level of each line of one process, one after the other."""

    def __init__(self) -> None:
        self._last, self._in_traceback = "info", False

    def read(self, line: bytes) -> str:
        """The level of *line*, one of ``LEVELS``."""
        if self._in_traceback:
            # It ends with the first line that is not indented: the exception itself.
            self._in_traceback = line[:1] in (b" ", b"\t", b"")
            return self._last
        if line.startswith(_TRACEBACK):
            self._in_traceback = True
            if self._last != "warning":
                self._last = "error"
            return self._last
        found = _LEVEL.search(line[:_LEVEL_WITHIN])
        self._last = _WORDS[found[1]] if found else "info"
        return self._last


class LevelFilter:
    """Which lines of a merged log, of any format and without colors, are of level *least* or above."""

    def __init__(self, least: str) -> None:
        self._least = LEVELS.index(least)
        self._readers: dict[bytes, LevelReader] = {}

    def passes(self, line: bytes) -> bool:
        """Whether *line* is."""
        if not self._least:
            return True
        said = _parse(line.rstrip(b"\n"))
        level = _level_of(said) if said else ""
        if not level and (found := _LOGFMT_LEVEL.search(line)):
            level = found[1].decode()
        if not level:
            name, _, text = line.partition(b" | ")
            level = self._readers.setdefault(name, LevelReader()).read(text)
        return LEVELS.index(level) >= self._least


class Voice:
    """How what one process prints appears in the merged log. ``prefix`` is for text."""

    def __init__(
        self, name: str, prefix: bytes, kind: str = TEXT, least: str = LEVELS[0], now: Callable[[], float] = lambda: 0.0
    ) -> None:
        self.name, self.prefix = name, prefix
        self._kind, self._least, self._now = kind, LEVELS.index(least), now
        self._levels = LevelReader()

    def render(self, lines: bytes) -> tuple[bytes, bytes]:
        """*lines*, each with its end, for those who want everything, and for those who want the level or above."""
        if self._kind == TEXT and not self._least:
            out = prefix_lines(self.prefix, lines)
            return out, out
        everything, visible = [], []
        for line, level in self._records(lines):
            everything.append(line)
            if LEVELS.index(level) >= self._least:
                visible.append(line)
        return b"".join(everything), b"".join(visible)

    def _records(self, lines: bytes) -> Iterator[tuple[bytes, str]]:
        for line in lines[:-1].split(b"\n"):
            plain = strip_colors(line).rstrip(b"\r")
            said = _parse(plain)
            level = _level_of(said) if said else ""
            level = level or self._levels.read(plain)
            if self._kind == TEXT:
                yield prefix_lines(self.prefix, line + b"\n"), level
                continue
            record: dict[str, Any] = {"time": "", "process": self.name, "level": level}
            record |= said if said is not None else {"message": plain.decode(errors="backslashreplace")}
            record |= {"process": self.name, "level": level, "time": record["time"] or stamp(self._now())}
            yield (to_json(record) if self._kind == JSON else to_logfmt(record)).encode() + b"\n", level


def to_logfmt(record: Mapping[str, Any]) -> str:
    """``time=... process=worker.2 level=info message="..."``; what is no text is written as in JSON."""
    return " ".join(f"{_key(name)}={_value(value)}" for name, value in record.items())


def _key(name: str) -> str:
    return re.sub(r"[^!#-<>-~]", "_", name) or "_"


def _value(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if _PLAIN.fullmatch(text) else to_json(text)


def _parse(line: bytes) -> dict[str, Any] | None:
    """The JSON object that *line* is; None if it is something else."""
    if not (line.startswith(b"{") and line.endswith(b"}")):
        return None
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _level_of(record: Mapping[str, Any]) -> str:
    """The level that *record* says itself; "" if it says none that is known."""
    for name in ("level", "levelname", "severity"):
        value = record.get(name)
        if isinstance(value, str) and value.upper().encode(errors="replace") in _WORDS:
            return _WORDS[value.upper().encode()]
    return ""
