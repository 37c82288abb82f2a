"""``channels-run reloader``: started by ``channels-run --reload`` to watch the project's files; not for use by hand.

Also the wait for a first version of the code that starts.
"""

from __future__ import annotations

import contextlib
import fnmatch
import importlib.util
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
from watchfiles import Change, DefaultFilter, watch

# Milliseconds without a further change after which one is told, and the longest that changes are collected.
_QUIET, _LONGEST = 50, 400


class _Filter(DefaultFilter):
    """Files whose names match one of *patterns*, outside of environments, repositories and caches."""

    ignore_dirs = (*DefaultFilter.ignore_dirs, "venv", "env", "site-packages", ".demo", ".ruff_cache")

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = tuple(patterns)
        super().__init__()

    def __call__(self, change: Change, path: str) -> bool:
        name = Path(path).name
        return any(fnmatch.fnmatch(name, pattern) for pattern in self._patterns) and super().__call__(change, path)


def wait_for_change(directories: Sequence[str], include: str) -> None:
    """Return when a file below *directories* has changed whose name matches one of the globs *include*.

    Raises:
        KeyboardInterrupt: SIGINT came.
    """
    next(_changes(directories, include))


def _changes(directories: Sequence[str], include: str) -> Iterator[list[str]]:
    """The files that have changed, relative to the current directory, each time when some have."""
    patterns = [each.strip() for each in include.split(",") if each.strip()]
    for found in watch(
        *directories, watch_filter=_Filter(patterns), step=_QUIET, debounce=_LONGEST,
        ignore_permission_denied=True, rust_timeout=10_000, yield_on_timeout=True,
    ):  # fmt: skip
        files = sorted({os.path.relpath(path) for _, path in found})
        for path in files:
            _drop_compiled(path)
        if files:
            yield files


def _drop_compiled(path: str) -> None:
    """Remove what Python has compiled of the file at *path*.

    It would take it for that of a later version which has the same size and was saved in the same second.
    """
    if path.endswith(".py"):
        with contextlib.suppress(OSError):
            Path(importlib.util.cache_from_source(path)).unlink()


@click.command("reloader", hidden=True)
@click.option("--control", required=True, help="Control socket of the supervisor.")
@click.option("--include", required=True, help="Globs of file names, with commas between them.")
@click.option("--directory", multiple=True, required=True, help="What to watch, with all below it.")
def command(control: str, include: str, directory: tuple[str, ...]) -> None:
    """Tell the supervisor when a file changes."""
    from procman.lifetime import announce_ready
    from procman.log import setup_logging
    from procman.supervision import control as client

    setup_logging()
    changes = _changes(directory, include)
    announce_ready()
    with contextlib.suppress(KeyboardInterrupt):
        for files in changes:
            client.call(control, "procman.reload", files)
