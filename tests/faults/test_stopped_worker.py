"""SIGSTOP of a worker: a process that is there and does nothing."""

import itertools
import os
import signal
import time
from pathlib import Path

import pytest

from procman.layers.ipc import prefetch
from tests.faults import ledger
from tests.faults.crew import work
from tests.faults.play import Play
from tests.support.layers import running_hub

STOPPED = 10.0  # seconds


@pytest.mark.slow
def test_while_a_worker_is_stopped_the_others_go_on_and_it_finishes_its_own_afterwards(tmp_path: Path) -> None:
    with running_hub() as hub:
        play = Play(tmp_path, hub, seed=1)
        try:
            pid = play.workers[-1].pid
            work(1.0)
            stopped = time.monotonic()
            os.kill(pid, signal.SIGSTOP)
            try:
                work(STOPPED)
            finally:
                continued = time.monotonic()
                os.kill(pid, signal.SIGCONT)
            events = play.end()
        finally:
            play.close()
        log = hub.log
    assert ledger.audit(events) == []
    assert "does not read" not in log

    others = [e["t"] for e in events if e["kind"] == "begin" and e["pid"] != pid and stopped < e["t"] < continued]
    gaps = [later - earlier for earlier, later in itertools.pairwise([stopped, *others, continued])]
    assert len(others) > 50 * STOPPED
    assert max(gaps) < 0.5

    # What it had when it was stopped, and what it was given while it looked idle; nothing more is sent after it.
    books = ledger.sort_out(events)
    asked_before = [a for a in books.accounts.values() if a.asked < continued - 1 and a.runs]
    held = [a.runs[0] for a in asked_before if (a.runs[0].finished or 0.0) > continued]
    assert 1 <= len(held) <= prefetch.DEPTH
    assert {run.pid for run in held} == {pid}
