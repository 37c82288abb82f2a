"""The command line of the benchmarks: runs the rows asked for, prints a table, writes JSON."""

import json
import os
import platform
import statistics
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import procman
from benchmarks.rows import ROWS, Row


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("rows", nargs=-1, type=click.Choice(sorted(ROWS)))
@click.option("--rounds", default=5, show_default=True, help="Rounds; in each, every server is started and measured.")
@click.option("--seconds", default=5.0, show_default=True, help="Seconds of load per measurement, after a warm-up.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write every sample to this file.")
def main(rows: tuple[str, ...], rounds: int, seconds: float, json_path: Path | None) -> None:
    """Time procman and its peers on the same work.

    Servers take turns, A B C A B C, so that a machine whose speed drifts is equally unfair to all. The table shows
    medians over the rounds, the lowest and highest round, and the ratio to the peer, which is what to trust.

    \b
    scripts/bench               all rows
    scripts/bench echo          one row
    scripts/bench --json FILE   keep the samples
    """
    chosen = [ROWS[name] for name in rows or sorted(ROWS)]
    console = Console(width=max(Console().width, 110))
    samples: dict[str, dict[str, list[dict[str, float]]]] = {
        row.name: {server.name: [] for server in row.servers} for row in chosen
    }
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
    if json_path:
        facts = {"procman": procman.__version__, "python": platform.python_version(), "cores": os.cpu_count()}
        json_path.write_text(json.dumps({**facts, "seconds": seconds, "rows": samples}, indent=1))


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
            f"{statistics.median(rates):,.0f}",
            f"{min(rates):,.0f}",
            f"{max(rates):,.0f}",
            f"{statistics.median(s['p50_ms'] for s in samples[server.name]):.2f}",
            f"{statistics.median(s['p99_ms'] for s in samples[server.name]):.2f}",
            f"{ours / statistics.median(rates):.2f}",
        )
    return result


main()
