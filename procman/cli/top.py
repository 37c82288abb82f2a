"""``channels-run top``: the running site as it is now, in a terminal; keys restart, stop and scale."""

from __future__ import annotations

import re
import select
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from procman.cli.running import control_socket, leave_not_running, site_options
from procman.cli.status import format_uptime
from procman.clock import SystemClock
from procman.supervision.logformat import LevelFilter
from procman.supervision.output import strip_colors

if TYPE_CHECKING:
    from rich.console import Group

MIB = 1024 * 1024
ERRORS = 8  # last lines that are shown
COLUMNS = ("name", "pid", "state", "uptime", "restarts", "CPU %", "MiB")
KEYS = "up/down: choose   r: restart   s: stop or start   +/-: one worker more or less   q: quit"
_STYLES = {"RUNNING": "green", "STARTING": "yellow", "STOPPING": "yellow", "BACKOFF": "red", "FATAL": "red"}
_CONTINUED = re.compile(rb"^\S+ +\| (?:\s|$)")  # a line of a traceback that tells the way, not the error
_ARROWS = {"\x1b[A": "up", "\x1b[B": "down", "k": "up", "j": "down"}


@dataclass(frozen=True)
class Sample:
    """The site at *time* (monotonic seconds): CPU seconds and bytes of memory by pid, what the layer counts."""

    time: float
    processes: Sequence[Mapping[str, Any]]
    cpu: Mapping[int, float] = field(default_factory=dict)
    memory: Mapping[int, int] = field(default_factory=dict)
    layer: Mapping[str, Any] = field(default_factory=dict)
    errors: Sequence[str] = ()


def rows(now: Sample, before: Sample | None) -> list[tuple[str, ...]]:
    """A line of text cells per process; CPU is the share of one processor since *before*."""
    found: list[tuple[str, ...]] = []
    for each in now.processes:
        pid = each["pid"]
        used = "-"
        if before is not None and pid in now.cpu and pid in before.cpu and now.time > before.time:
            used = f"{max(0.0, now.cpu[pid] - before.cpu[pid]) / (now.time - before.time) * 100:.0f}"
        memory = f"{now.memory[pid] / MIB:.0f}" if pid in now.memory else "-"
        found.append(
            (each["name"], str(pid or "-"), each["state"], format_uptime(each["uptime"]), str(each["restarts"]), used,
             memory)
        )  # fmt: skip
    return found


def summary(now: Sample) -> str:
    """What the layer says, in a line; over Redis it is asked by nobody."""
    counts = now.layer
    total = sum(now.memory.values()) / MIB
    if not counts:
        return f"{total:.0f} MiB"
    return (
        f"{counts['sockets']} sockets   {counts['messages_count_per_second']:.0f} messages/s   "
        f"{counts['messages_pending']} wait   {counts['in_flight']} in flight   "
        f"oldest {counts['messages_max_age']:.1f} s   {total:.0f} MiB"
    )


class Site:
    """The running site behind the control socket *path*: looks at it, and passes on what keys ask for."""

    def __init__(self, path: str, address: str) -> None:
        self._path, self._address = path, address
        self._layer: Any = None
        self.news = ""

    def look(self) -> Sample:
        """Everything, now. Raises NotRunning."""
        from procman.supervision import control, usage

        processes = control.status(self._path)["processes"]
        pids = [each["pid"] for each in processes if each["pid"]]
        cpu, memory = usage.cpu_of(pids), usage.memory_of(pids)
        lines, _ = control.logs(self._path, [], follow=False)
        plain = [strip_colors(line) for line in lines]
        levels = LevelFilter("warning")
        trouble = [line for line in plain if levels.passes(line) and not _CONTINUED.search(line)]
        errors = [line.decode(errors="replace").rstrip() for line in trouble[-ERRORS:]]
        return Sample(SystemClock.monotonic(), processes, cpu, memory, self._statistics(), errors)

    def _statistics(self) -> Mapping[str, Any]:
        from procman.layers.errors import LayerError

        if not self._address.startswith("ipc:"):
            return {}
        if self._layer is None:
            from procman.layers.ipc import IPCChannelLayer

            self._layer = IPCChannelLayer(self._address, connect_timeout=0.5)
        try:
            found: Mapping[str, Any] = self._layer.statistics()
        except LayerError:
            return {}
        return found

    def ask(self, what: str, method: str, *parameters: Any) -> None:
        """Have the site do something, in a thread: it may take as long as a process starts."""
        from procman.errors import ProcmanError
        from procman.supervision import control

        def call() -> None:
            try:
                control.call(self._path, method, *parameters, timeout=None)
            except ProcmanError as error:
                self.news = str(error)
            else:
                self.news = f"{what}: done"

        self.news = f"{what} ..."
        threading.Thread(target=call, daemon=True).start()


def handle(key: str, site: Site, sample: Sample, selected: int) -> int | None:
    """Do what *key* stands for; the line that is chosen then, None to quit."""
    processes = sample.processes
    move = _ARROWS.get(key)
    if key in ("q", "\x03", "\x04"):
        return None
    if move is not None:
        return max(0, min(len(processes) - 1, selected + (1 if move == "down" else -1)))
    if not processes:
        return selected
    chosen = processes[min(selected, len(processes) - 1)]
    workers = sum(each["type"] == "worker" and not each["name"].endswith("~") for each in processes)
    if key == "r":
        site.ask(f"restart {chosen['name']}", "procman.restart", chosen["name"])
    elif key == "s":
        verb = "start" if chosen["state"] in ("STOPPED", "BACKOFF", "FATAL") else "stop"
        site.ask(f"{verb} {chosen['name']}", f"procman.{verb}", chosen["name"])
    elif key in "+-":
        count = max(1, workers + (1 if key == "+" else -1))
        site.ask(f"scale worker={count}", "procman.scale", "worker", count)
    return selected


def render(now: Sample, before: Sample | None, selected: int, news: str) -> Group:
    """The screen."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(*COLUMNS, box=None, header_style="bold")
    for number, row in enumerate(rows(now, before)):
        cells = [Text(cell, style=_STYLES.get(cell, "") if at == 2 else "") for at, cell in enumerate(row)]
        table.add_row(*cells, style="reverse" if number == selected else "")
    parts: list[Any] = [Text(summary(now), style="bold"), Text(), table, Text()]
    parts += [
        Text(line, style="yellow" if "WARNING" in line or "warning" in line else "red", no_wrap=True)
        for line in now.errors
    ]
    return Group(*parts, Text(), Text(news, style="cyan"), Text(KEYS, style="dim"))


@contextmanager
def _keys() -> Iterator[None]:
    """Within, keys of the terminal come one by one and unseen."""
    import termios
    import tty

    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    tty.setcbreak(fd)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def _next_keys(timeout: float) -> list[str]:
    if not select.select([sys.stdin], [], [], timeout)[0]:
        return []
    import os

    return split_keys(os.read(sys.stdin.fileno(), 1024).decode(errors="replace")) or ["q"]  # the terminal has gone


def split_keys(text: str) -> list[str]:
    """The keys in *text*, which came at once: an arrow is three characters."""
    return re.findall(r"\x1b\[[A-Z]|.", text, re.DOTALL)


@click.command("top")
@click.option(
    "--interval", type=click.FloatRange(0.1, 60), default=1.0, show_default=True, help="Seconds between looks."
)
@site_options
def command(interval: float, layer: str | None, settings: str | None) -> None:
    """Show the processes of the running site as they are now, with what they use and the last warnings and errors.

    \b
    Keys: up and down (or k and j) choose a process, r restarts it, s stops or starts it, + and - change the number of
    workers, q ends. Where the output is no terminal it is printed once.
    """
    from procman.cli.project import guess_layer
    from procman.supervision.errors import NotRunning

    path = control_socket(layer, settings)
    site = Site(path, guess_layer(settings, layer))
    try:
        if sys.stdout.isatty() and sys.stdin.isatty():
            _show(site, interval)
        else:
            _print_once(site, interval)
    except NotRunning as error:
        leave_not_running(error)


def _print_once(site: Site, interval: float) -> None:
    before = site.look()
    threading.Event().wait(interval)
    now = site.look()
    lines = [COLUMNS, *rows(now, before)]
    widths = [max(len(row[i]) for row in lines) for i in range(len(COLUMNS))]
    click.echo(summary(now))
    for row in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for line in now.errors:
        click.echo(line)


def _show(site: Site, interval: float) -> None:
    from rich.live import Live

    before: Sample | None = None
    now = site.look()
    selected: int | None = 0
    with _keys(), Live(screen=True, auto_refresh=False) as live:
        due = SystemClock.monotonic() + interval
        while selected is not None:
            live.update(render(now, before, selected, site.news), refresh=True)
            try:
                keys = _next_keys(max(0.0, due - SystemClock.monotonic()))
            except KeyboardInterrupt:
                return
            for key in keys:
                selected = handle(key, site, now, selected) if selected is not None else None
            if SystemClock.monotonic() >= due:
                before, now, due = now, site.look(), SystemClock.monotonic() + interval
