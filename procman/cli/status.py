"""``channels-run status``: the processes of the running site."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from procman.cli.options import layer_option, settings_option

_COLUMNS = ("name", "pid", "state", "uptime", "restarts", "last exit")


@click.command("status")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for programs.")
@layer_option
@settings_option
def command(as_json: bool, layer: str | None, settings: str | None) -> None:
    """Show every process of this project: its state, uptime and restarts. Exit status 3 when nothing is running."""
    from procman.cli.running import control_socket, leave_not_running
    from procman.supervision import control
    from procman.supervision.errors import NotRunning

    try:
        found = control.status(control_socket(layer, settings))
    except NotRunning as error:
        leave_not_running(error)
    if as_json:
        click.echo(json.dumps(found))
    elif sys.stdout.isatty():
        _print_rich(found["processes"])
    else:
        click.echo(plain_table(found["processes"]))


def format_uptime(seconds: float) -> str:
    """``12.3 s`` below a minute, else ``1:02:03``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _rows(processes: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    return [
        (
            p["name"],
            str(p["pid"] or "-"),
            p["state"],
            format_uptime(p["uptime"]),
            str(p["restarts"]),
            "-" if p["exit_status"] is None else str(p["exit_status"]),
        )
        for p in processes
    ]


def plain_table(processes: list[dict[str, Any]]) -> str:
    """The processes as aligned text."""
    rows = [_COLUMNS, *_rows(processes)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _print_rich(processes: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*_COLUMNS, box=None, header_style="bold")
    styles = {"RUNNING": "green", "STARTING": "yellow", "STOPPING": "yellow", "BACKOFF": "red", "FATAL": "red"}
    for name, pid, state, *rest in _rows(processes):
        style = styles.get(state)
        table.add_row(name, pid, f"[{style}]{state}[/]" if style else state, *rest)
    Console().print(table)
