"""Where the lines of all processes meet: the console, the ring for whoever asks later, and files if they are wanted.

Decides nothing about lines (``logformat.py``) and does no writing of its own (``console.py``, ``logfiles.py``).
"""

from __future__ import annotations

from collections.abc import Sequence

from procman.clock import Clock
from procman.log import stamp, to_json
from procman.settings import SupervisorSettings
from procman.supervision.console import Console
from procman.supervision.logfiles import LogFiles
from procman.supervision.logformat import TEXT, Voice
from procman.supervision.logring import LogRing
from procman.supervision.output import SYSTEM, build_prefix, prefix_lines


class MergedLog:
    """The log of a formation of *names*; *files* None: none are written."""

    def __init__(
        self,
        console: Console,
        ring: LogRing,
        settings: SupervisorSettings,
        clock: Clock,
        names: Sequence[str],
        color: bool,
        files: LogFiles | None = None,
    ) -> None:
        self._console, self._ring, self._settings, self._clock, self._files = console, ring, settings, clock, files
        self._color = color
        self._width = max(len(name) for name in (*names, SYSTEM))
        self._numbers: dict[str, int] = {}
        self.max_line = settings.log_max_line
        for name in names:
            self.voice(name)
        self._system = self.voice(SYSTEM)

    @property
    def is_full(self) -> bool:
        """Whether nothing more should be written until the console has got rid of some."""
        return self._console.is_full

    def voice(self, name: str) -> Voice:
        """How what the process *name* prints appears; one for each run of it."""
        number = self._numbers.setdefault(name, len(self._numbers))
        prefix = build_prefix(name, number, self._width, self._color)
        settings = self._settings
        return Voice(name, prefix, settings.log_format, settings.log_level, self._clock.wall)

    def write(self, voice: Voice, lines: bytes) -> None:
        """*voice* says *lines*, each with its end."""
        everything, visible = voice.render(lines)
        self._ring.add(voice.name, everything)
        self._console.write(visible)
        if self._files is not None:
            text = self._settings.log_format == TEXT
            self._files.write(voice.name, self._with_time(lines) if text else everything)

    def say(self, level: str, text: str) -> None:
        """A line of the supervisor's own; *level* is ``INFO``, ``WARNING`` or ``ERROR``."""
        if self._settings.log_format == TEXT:
            line = text if level == "INFO" else f"{level} {text}"
        else:
            line = to_json({"level": level.lower(), "message": text})
        self.write(self._system, line.encode(errors="backslashreplace") + b"\n")

    def _with_time(self, lines: bytes) -> bytes:
        return prefix_lines(f"{stamp(self._clock.wall())} ".encode(), lines)
