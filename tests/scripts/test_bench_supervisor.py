"""The benchmark of the supervisor measures what it says: programs that start, die and write below each contestant."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package of the benchmarks can be imported, here and by what is started."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(SCRIPTS), str(SCRIPTS.parent))))
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "benchmarks"]:
        del sys.modules[name]


@pytest.mark.slow
@pytest.mark.usefixtures("benchmarks")
def test_our_own_contestant_is_measured() -> None:
    from benchmarks.rows import Server
    from benchmarks.supervisor import contestants, rows

    ours = Server(contestants.OURS, (contestants.OURS,))
    assert 1 < rows.SUPERVISOR_ROWS["restart"].measure(ours, 1.0)["rate"] < 5000
    assert 1 < rows.SUPERVISOR_ROWS["stop"].measure(ours, 1.0)["rate"] < 5000
    checked = rows.SUPERVISOR_ROWS["log-checked"].measure(ours, 1.0)
    assert checked["rate"] > 0.5 and checked["torn"] == 0


@pytest.mark.usefixtures("benchmarks")
def test_a_row_says_what_was_reached() -> None:
    from benchmarks.__main__ import verdict
    from benchmarks.rows import Row, Server

    servers = (Server("ours", ()), Server("peer", ()))
    samples = {"ours": [{"rate": 100.0, "torn": 2}], "peer": [{"rate": 400.0, "torn": 0}]}

    def row(**wanted: object) -> Row:
        return Row("x", "X", lambda server, seconds: {}, servers, "ms", **wanted)  # type: ignore[arg-type]

    assert verdict(row(), samples) == ""
    assert verdict(row(most=100), samples) == "ours, wanted at most 100 ms: reached"
    assert verdict(row(most=99), samples).endswith("MISSED")
    assert verdict(row(least=101), samples).endswith("MISSED")
    assert verdict(row(most_share=0.25), samples).endswith("reached")
    assert verdict(row(most_share=0.2), samples).endswith("MISSED")
    assert verdict(row(count=("torn", "lines torn")), samples) == "ours: 2 lines torn\npeer: 0 lines torn"
