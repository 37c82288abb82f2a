"""``channels-run layer``: the hub of the IPC layer, in the foreground; or where it is."""

from __future__ import annotations

import os
from typing import Any

import click

from procman.cli.options import layer_option, settings_option, settings_options
from procman.errors import ConfigurationError
from procman.settings import ENV_LAYER, LayerSettings


@click.command("layer")
@click.option("--fd", type=click.IntRange(0), help="Descriptor of a listening Unix socket to serve.")
@click.option("--print-address", is_flag=True, help="Print where this project's processes meet, and end.")
@layer_option
@settings_option
@settings_options(LayerSettings)
def command(fd: int | None, print_address: bool, layer: str | None, settings: str | None, **values: Any) -> None:
    """Keep the messages that wait, for the processes of this project on this host."""
    from procman.cli.project import choose_layer, guess_layer

    if print_address:
        click.echo(guess_layer(settings, layer))
        return
    from procman.layers.ipc.server import run_hub
    from procman.layers.redis.hosts import is_redis
    from procman.log import setup_logging

    limits = LayerSettings.load(**values)
    setup_logging()
    given = layer or os.environ.get(ENV_LAYER)
    address = choose_layer(given, "") if given else guess_layer(settings, None)
    if is_redis(address):
        raise ConfigurationError("the Redis layer has no process of its own: start a Redis or Valkey server")
    run_hub(address, fd, limits)
