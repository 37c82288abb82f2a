"""Command-line flags made from the fields of ``procman.settings``, so that each setting is described once.

A flag that is not given is None: the environment and the defaults are applied by ``Settings.load``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

import click

from procman.cli import environment

Command = TypeVar("Command", bound=Callable[..., Any])

_SHORT = {"port": "-p", "workers": "-w", "count": "-c"}


def flag_name(field_name: str) -> str:
    """``--max-body-size`` for ``max_body_size``."""
    return "--" + field_name.replace("_", "-")


def _help(field: dataclasses.Field[Any]) -> str:
    default = field.default
    if isinstance(default, bool) or default == "":
        return str(field.metadata["help"])
    unit = f" {field.metadata['unit']}" if field.metadata["unit"] else ""
    value = f"{default:g}" if isinstance(default, float) else str(default)
    env = f"; environment: {field.metadata['env']}" if field.metadata["env"] else ""
    return f"{field.metadata['help']}  [default: {value}{unit}{env}]"


def _type(field: dataclasses.Field[Any]) -> click.ParamType[Any]:
    low, high = field.metadata["minimum"], field.metadata["maximum"]
    if field.metadata["choices"]:
        return click.Choice(field.metadata["choices"])
    if isinstance(field.default, int):
        return click.IntRange(low, high)
    if isinstance(field.default, float):
        return click.FloatRange(low, high)
    return click.STRING


def _join(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> str | None:
    return ",".join(values) or None


def settings_options(
    settings: type, only: Collection[str] = (), exclude: Collection[str] = ()
) -> Callable[[Command], Command]:
    """A decorator that adds one option per field of the dataclass *settings* (*only* those, or all but *exclude*)."""

    def decorate(command: Command) -> Command:
        for field in reversed(dataclasses.fields(settings)):
            if only and field.name not in only:
                continue
            flag = flag_name(field.name)
            if isinstance(field.default, bool):
                names = [f"{flag}/--no-{flag[2:]}"]
                command = click.option(*names, field.name, default=None, help=_help(field))(command)
            else:
                names = [flag, *([_SHORT[field.name]] if field.name in _SHORT else [])]
                several: dict[str, Any] = {"multiple": True, "callback": _join} if field.metadata["several"] else {}
                option = click.option(*names, field.name, type=_type(field), default=None, help=_help(field), **several)
                command = option(command)
        return command

    return decorate


def pick(settings: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of *values* that are fields of *settings* and were given."""
    names = {field.name for field in dataclasses.fields(settings)}
    return {name: value for name, value in values.items() if name in names and value is not None}


def to_arguments(settings: type, values: Mapping[str, Any]) -> list[str]:
    """Command-line words that give another ``channels-run`` the same *values*."""
    words: list[str] = []
    for name, value in pick(settings, values).items():
        flag = flag_name(name)
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        else:
            words += [flag, str(value)]
    return words


_settings = click.option(
    "--settings", metavar="MODULE", help="Django settings, such as mysite.settings.  [default: from manage.py]"
)
_env = click.option(
    "--env",
    metavar="FILE",
    multiple=True,
    expose_value=False,
    callback=environment.remember_files,
    help="File of environment variables, instead of .env; may be given several times. What is set already stays.",
)
_no_env = click.option(
    "--no-env",
    is_flag=True,
    expose_value=False,
    callback=environment.remember_refusal,
    help="Read no file of environment variables.",
)


def settings_option(command: Command) -> Command:
    """The options that say which project is meant, and in which environment."""
    return _settings(_env(_no_env(command)))


layer_option = click.option(
    "--layer", metavar="URL", help="Channel layer, such as ipc:///run/site.sock.  [default: the project's own]"
)
fd_option = click.option(
    "--fd",
    type=click.IntRange(0),
    multiple=True,
    help="Descriptor of a listening socket to serve, instead of --bind and --port; may be given several times.",
)
