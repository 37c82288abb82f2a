"""Which files of environment variables a command reads: those of ``--env``, else ``.env`` beside ``manage.py``.

On a platform whose own configuration is the environment none is read. ``supervision.environ`` reads one.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from procman.settings import ENV_RUN

if TYPE_CHECKING:
    from procman.supervision.platforms import Platform

_FILES, _REFUSED, _DONE = "procman.env.files", "procman.env.refused", "procman.env.done"


def remember_files(context: click.Context, parameter: click.Parameter, files: tuple[str, ...]) -> None:
    """The value of ``--env``."""
    context.meta[_FILES] = files


def remember_refusal(context: click.Context, parameter: click.Parameter, refused: bool) -> None:
    """The value of ``--no-env``."""
    context.meta[_REFUSED] = refused


def recognise_platform(choice: str | None = None) -> Platform | None:
    """The platform that this process runs on; *choice* is that of ``--platform``, if it was given.

    Raises:
        ConfigurationError: there is none of that name.
    """
    from procman.supervision import platforms  # on first use: it brings the event loop, which small roles do without

    wanted = choice or os.environ.get("PROCMAN_PLATFORM") or platforms.AUTO
    return platforms.find_platform(wanted, os.environ, os.path.exists)


def load_environment(choice: str | None = None) -> list[str]:
    """Read the files that the command line asks for, once; those that were read. *choice* is that of ``--platform``.

    A process that ``channels-run`` has started has its environment already.

    Raises:
        ConfigurationError: a file cannot be read, or is wrong.
    """
    context = click.get_current_context(silent=True)
    meta = context.meta if context is not None else {}
    if meta.get(_DONE) or meta.get(_REFUSED) or ENV_RUN in os.environ:
        return []
    from procman.supervision.environ import DEFAULT, load_env_file

    meta[_DONE] = True
    platform = recognise_platform(choice)
    files: tuple[str, ...] = meta.get(_FILES, ())
    if platform is not None and platform.sets_variables:
        if files:
            text = f"{', '.join(files)}: not read, {platform.name} sets the variables ({platform.reason})"
            click.echo(f"channels-run: {text}; --platform none switches this off", err=True)
        return []
    is_wanted = platform is None or platform.looks_for_env
    if not files and is_wanted and Path(DEFAULT).is_file():
        files = (DEFAULT,)
    for file in files:
        load_env_file(Path(file))
    return list(files)
