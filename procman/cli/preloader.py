"""``channels-run preloader``: started by ``channels-run start``, to fork the workers; not for use by hand."""

from __future__ import annotations

import sys
from typing import Any

import click

from procman.cli.options import settings_option, settings_options
from procman.settings import WorkerSettings


@click.command("preloader", hidden=True)
@settings_options(WorkerSettings)
@click.option("--control-fd", type=click.IntRange(3), required=True, help="Socket on which workers are asked for.")
@click.option("--describe-fd", type=click.IntRange(3), help="Pipe for what other processes must know of the project.")
@settings_option
def command(control_fd: int, describe_fd: int | None, settings: str | None, **values: Any) -> None:
    """Import the project once and fork the workers from it."""
    from procman.cli.project import enter_project
    from procman.log import setup_logging

    setup_logging()
    enter_project(settings)
    from procman.channels.preloader import run_preloader

    sys.exit(run_preloader(WorkerSettings.load(**values), control_fd, describe_fd))
