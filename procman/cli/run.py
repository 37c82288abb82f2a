"""``channels-run run``: a command in the environment that the processes of the site have."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import click

from procman.cli import exits
from procman.cli.options import layer_option, settings_option
from procman.errors import ConfigurationError
from procman.settings import ENV_LAYER, SupervisorSettings

_NOT_FOUND, _NOT_EXECUTABLE = 127, 126  # as a shell has it


@click.command("run", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--procfile", metavar="FILE", help="Take COMMAND, a single word, from the line of that name.")
@layer_option
@settings_option
def command(command: tuple[str, ...], procfile: str | None, layer: str | None, settings: str | None) -> None:
    """Run COMMAND with the variables of .env, the site's settings and its channel layer.

    \b
        channels-run run python manage.py migrate
        channels-run run --procfile Procfile.dev css
    """
    from procman.cli.project import choose_layer, enter_project

    try:
        enter_project(settings)
    except ConfigurationError:
        if settings:
            raise  # a command needs no project unless one is named
    if layer:
        os.environ[ENV_LAYER] = choose_layer(layer, "")
    _execute(_from_procfile(procfile, command) if procfile else list(command))


def _from_procfile(path: str, words: tuple[str, ...]) -> list[str]:
    from procman.cli.formation import read_procfile
    from procman.supervision.procfile import shell_command

    found = read_procfile(SupervisorSettings.load({}, procfile=path))
    commands = {entry.name: entry.command for entry in found.entries}
    if len(words) != 1 or words[0] not in commands:
        raise ConfigurationError(f"{path} has no line {' '.join(words)!r}; it has {', '.join(commands) or 'none'}")
    return shell_command(commands[words[0]])


def _execute(words: list[str]) -> NoReturn:
    sys.stdout.flush()
    try:
        os.execvp(words[0], words)
    except FileNotFoundError:
        _fail(f"there is no program {words[0]!r}", _NOT_FOUND)
    except OSError as error:
        _fail(f"cannot run {words[0]!r}: {error.strerror}", _NOT_EXECUTABLE)
    except ValueError as error:
        _fail(f"cannot run {words[0]!r}: {error}", exits.USAGE)


def _fail(text: str, status: int) -> NoReturn:
    click.echo(f"channels-run: error: {text}", err=True)
    sys.exit(status)
