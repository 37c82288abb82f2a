"""A file per process with its lines, put aside when it has grown: ``worker.1.log``, ``worker.1.log.1``, ...

Drives the files of one directory. A write that fails (a full disk) loses these lines, and is told once per process.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable
from pathlib import Path

from procman.errors import ConfigurationError

_MODE = 0o640


class LogFiles:
    """Files in *directory*, of at most *max_bytes* each and *backups* older ones.

    *on_failure* is called with a text. Raises ConfigurationError: the directory cannot be made or written to.
    """

    def __init__(self, directory: str, max_bytes: int, backups: int, on_failure: Callable[[str], None]) -> None:
        self._directory, self._max_bytes, self._backups = Path(directory), max_bytes, backups
        self._on_failure = on_failure
        self._files: dict[str, tuple[int, int]] = {}  # descriptor, size
        self._failed: set[str] = set()
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"--log-dir {directory} cannot be made: {error.strerror}") from None
        if not os.access(directory, os.W_OK | os.X_OK):
            raise ConfigurationError(f"--log-dir {directory} cannot be written to")

    def write(self, name: str, data: bytes) -> None:
        """Add *data*, whole lines, to the file of *name*."""
        try:
            fd, size = self._files.get(name) or self._open(name)
            if size and size + len(data) > self._max_bytes:
                self._put_aside(name)
                fd, size = self._open(name)
            self._files[name] = fd, size + len(data)
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            self._failed.discard(name)
        except OSError as error:
            if name not in self._failed:
                self._failed.add(name)
                self._on_failure(f"cannot write {self._path(name)}: {error.strerror}; lines are lost there")

    def close(self) -> None:
        """Close all files."""
        for fd, _ in self._files.values():
            os.close(fd)
        self._files.clear()

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}.log"

    def _open(self, name: str) -> tuple[int, int]:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(self._path(name), flags, _MODE)
        self._files[name] = fd, os.fstat(fd).st_size
        return self._files[name]

    def _put_aside(self, name: str) -> None:
        os.close(self._files.pop(name)[0])
        path = self._path(name)
        older = [path, *(path.with_name(f"{path.name}.{number}") for number in range(1, self._backups + 1))]
        for source, target in reversed(list(itertools.pairwise(older))):
            with contextlib.suppress(FileNotFoundError):
                source.replace(target)
        if not self._backups:
            path.unlink()
