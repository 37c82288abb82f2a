"""What the commands that talk to a running site share: where its control socket is, and their words and statuses."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from procman.cli import exits
from procman.cli.options import layer_option, settings_option
from procman.errors import ConfigurationError
from procman.supervision import control
from procman.supervision.errors import ControlFault, NotRunning

Command = TypeVar("Command", bound=Callable[..., Any])
NAMES = "NAMES are processes or types, as in `status`: worker.2, worker, all."


def site_options(command: Command) -> Command:
    """The options that say which of several running sites is meant."""
    return layer_option(settings_option(command))


def control_socket(layer: str | None, settings: str | None) -> str:
    """The path of the control socket of this project's running site.

    Raises:
        ConfigurationError: there is no project here.
    """
    from procman.cli.project import control_of, enter_project, guess_layer
    from procman.layers.ipc.address import control_path

    enter_project(settings)
    return control_path(control_of(guess_layer(settings, layer)))


def ask(layer: str | None, settings: str | None, method: str, *parameters: Any) -> Any:
    """What the running site answers to *method*, however long that takes.

    Exits with status 3 and a line where nothing is running.

    Raises:
        ConfigurationError: it refused.
    """
    try:
        return control.call(control_socket(layer, settings), method, *parameters, timeout=None)
    except NotRunning as error:
        leave_not_running(error)
    except ControlFault as fault:
        raise ConfigurationError(fault.text) from None


def leave_not_running(error: NotRunning) -> None:
    """Exit with status 3 and one line."""
    click.echo(f"channels-run: {error}", err=True)
    sys.exit(exits.NOT_RUNNING)


def print_states(states: Mapping[str, str], wanted: str) -> None:
    """A line per process; exits with status 1 unless all are *wanted*, or have run once with success."""
    for name, state in states.items():
        click.echo(f"{name}: {state.lower()}")
    if any(state not in (wanted, "EXITED") for state in states.values()):
        sys.exit(exits.UNEXPECTED)
