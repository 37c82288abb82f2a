"""The command line of the benchmarks: runs the rows asked for, prints a table, writes JSON."""

import json
import math
import os
import platform
import statistics
from dataclasses import replace
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import procman
from benchmarks import plot
from benchmarks.interface.rows import INTERFACE_ROWS
from benchmarks.layers.rows import LAYER_ROWS
from benchmarks.model.rows import MODEL_ROWS
from benchmarks.rows import ROWS as SERVER_ROWS
from benchmarks.rows import Row
from benchmarks.supervisor.rows import SUPERVISOR_ROWS

ROWS = SERVER_ROWS | INTERFACE_ROWS | LAYER_ROWS | MODEL_ROWS | SUPERVISOR_ROWS
GROUPS = {
    "interface": list(INTERFACE_ROWS),
    "layers": list(LAYER_ROWS),
    "model": list(MODEL_ROWS),
    "servers": list(SERVER_ROWS),
    "supervisor": list(SUPERVISOR_ROWS),
}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("rows", nargs=-1, type=click.Choice(sorted([*ROWS, *GROUPS])))
@click.option("--rounds", default=5, show_default=True, help="Rounds; in each, every server is started and measured.")
@click.option("--seconds", default=5.0, show_default=True, help="Seconds of load per measurement, after a warm-up.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write every sample to this file.")
@click.option("--svg", "svg_path", type=click.Path(path_type=Path), help="Draw the medians into this file.")
def main(rows: tuple[str, ...], rounds: int, seconds: float, json_path: Path | None, svg_path: Path | None) -> None:
    """Time procman and its peers on the same work.

    Servers take turns, A B C A B C, so that a machine whose speed drifts is equally unfair to all. The table shows
    medians over the rounds, the lowest and highest round, and the ratio to the peer, which is what to trust.

    \b
    scripts/bench               all rows
    scripts/bench servers       those through servers: HTTP, WebSocket, start
    scripts/bench interface     the interface server alone, on a core of its own: memory, CPU, latency, reconnects
    scripts/bench layers        those of the channel layers alone
    scripts/bench model         routing, dispatch and views: CPU time of a worker
    scripts/bench supervisor    processes and lines, beside honcho and supervisord
    scripts/bench echo          one row
    scripts/bench --json FILE --svg FILE   keep the samples, draw them
    """
    names = [name for asked in rows or GROUPS for name in GROUPS.get(asked, [asked])]
    chosen = [_without_absent(ROWS[name]) for name in dict.fromkeys(names)]
    console = Console(width=max(Console().width, 110))
    samples: plot.Samples = {row.name: {server.name: [] for server in row.servers} for row in chosen}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=rounds * sum(len(row.servers) for row in chosen))
        for number in range(rounds):
            for row in chosen:
                for server in row.servers:
                    progress.update(task, description=f"round {number + 1}: {row.name}, {server.name}")
                    samples[row.name][server.name].append(row.measure(server, seconds))
                    progress.advance(task)
    for row in chosen:
        console.print(table(row, samples[row.name]))
    for note in sorted({f"{s.name}: {s.absent}" for name in names for s in ROWS[name].servers if s.absent}):
        console.print(f"not measured: {note}")
    if svg_path:
        svg_path.write_text(plot.draw([(row.name, row.title, row.unit) for row in chosen], samples))
    if json_path:
        facts = {"procman": procman.__version__, "python": platform.python_version(), "cores": os.cpu_count()}
        json_path.write_text(json.dumps({**facts, "seconds": seconds, "rows": plot.without_nan(samples)}, indent=1))


def _without_absent(row: Row) -> Row:
    return replace(row, servers=tuple(server for server in row.servers if not server.absent))


def table(row: Row, samples: dict[str, list[dict[str, float]]]) -> Table:
    """Medians of one row, ours first, with the ratio of ours to each peer."""
    result = Table(title=row.title, title_justify="left")
    for heading in ("server", row.unit, "lowest", "highest", "p50 ms", "p99 ms", "ours / this"):
        result.add_column(heading, justify="left" if heading == "server" else "right")
    ours = statistics.median(sample["rate"] for sample in samples[row.servers[0].name])
    for server in row.servers:
        rates = [sample["rate"] for sample in samples[server.name]]
        result.add_row(
            server.name,
            *(_figure(rate) for rate in (statistics.median(rates), min(rates), max(rates))),
            _milliseconds(samples[server.name], "p50_ms"),
            _milliseconds(samples[server.name], "p99_ms"),
            f"{ours / statistics.median(rates):.2f}" if statistics.median(rates) else "",
        )
    result.caption, result.caption_justify = verdict(row, samples), "left"
    return result


def verdict(row: Row, samples: dict[str, list[dict[str, float]]]) -> str:
    """Whether ours has reached what the row asks for, and what was counted; "" if it asks for nothing."""
    medians = [statistics.median(sample["rate"] for sample in samples[server.name]) for server in row.servers]
    found = []
    for limit, reached, text in (
        (row.most, medians[0] <= (row.most or 0), f"at most {row.most} {row.unit}"),
        (row.least, medians[0] >= (row.least or 0), f"at least {row.least} {row.unit}"),
        (row.most_share, medians[0] <= (row.most_share or 0) * medians[-1], f"at most {row.most_share} of the last"),
    ):
        if limit is not None:
            found.append(f"{row.servers[0].name}, wanted {text}: {'reached' if reached else 'MISSED'}")
    if row.count:
        name, what = row.count
        found += [f"{each.name}: {sum(s[name] for s in samples[each.name]):.0f} {what}" for each in row.servers]
    return "\n".join(found)


def _figure(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}"


def _milliseconds(samples: list[dict[str, float]], name: str) -> str:
    found = statistics.median(sample[name] for sample in samples)
    return "" if math.isnan(found) else f"{found:.3f}" if found < 1 else f"{found:.2f}"


if __name__ == "__main__":
    main()
