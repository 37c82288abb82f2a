"""``channels-run scale``: more or fewer processes of a type, while the others go on."""

from __future__ import annotations

import sys

import click

from procman.cli import exits
from procman.cli.running import ask, site_options


@click.command("scale")
@click.argument("counts", nargs=-1, required=True, metavar="TYPE=COUNT...")
@site_options
def command(counts: tuple[str, ...], layer: str | None, settings: str | None) -> None:
    """Change how many processes of a type the running site has, such as worker=4.

    The others are not touched. Those that go finish what they work on. A restart of the site forgets it: --workers of
    `start` is what lasts.
    """
    for kind, count in [_parse(text) for text in counts]:
        states = ask(layer, settings, "procman.scale", kind, count)
        for name, state in states.items():
            click.echo(f"{name}: {state.lower()}")
        if any(state not in ("RUNNING", "STOPPED") for state in states.values()):
            sys.exit(exits.UNEXPECTED)


def _parse(text: str) -> tuple[str, int]:
    kind, mark, count = text.partition("=")
    if not (kind and mark and count.isascii() and count.isdigit()):
        raise click.UsageError(f"{text!r} is not like worker=4")
    return kind, min(int(count), 2**31 - 1)
