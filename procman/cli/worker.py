"""``channels-run worker``: one worker process, in the foreground."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from procman.cli.options import layer_option, settings_option, settings_options
from procman.settings import ENV_LAYER, WorkerSettings


@click.command("worker")
@settings_options(WorkerSettings)
@click.option("--only-channels", multiple=True, metavar="GLOB", help="Take messages of these channels only.")
@click.option("--exclude-channels", multiple=True, metavar="GLOB", help="Leave these channels to other workers.")
@layer_option
@settings_option
def command(
    only_channels: tuple[str, ...],
    exclude_channels: tuple[str, ...],
    layer: str | None,
    settings: str | None,
    **values: Any,
) -> None:
    """Take messages from the channel layer and run their consumers."""
    from procman.cli.project import choose_layer, enter_project
    from procman.log import setup_logging

    setup_logging()
    enter_project(settings)
    if layer:
        os.environ[ENV_LAYER] = choose_layer(layer, "")
    from procman.channels.worker import run_worker

    sys.exit(run_worker(WorkerSettings.load(**values), only_channels, exclude_channels))
