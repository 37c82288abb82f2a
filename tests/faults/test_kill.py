"""``kill -9`` at random moments, of workers and of the hub, with a ledger of every message.

200 rounds, in plays of 20 so that a violation has a short story. ``FAULT_SEED=7 FAULT_PLAYS=1`` repeats one play: the
same processes are killed in the same order, at the same moments as far as the machine allows.
"""

import os
from collections import Counter
from pathlib import Path

import pytest

from tests.faults import ledger
from tests.faults.play import LONELY, Play
from tests.support.layers import running_hub

SEED = int(os.environ.get("FAULT_SEED", "1"))
ROUNDS = int(os.environ.get("FAULT_ROUNDS", "20"))
PLAYS = int(os.environ.get("FAULT_PLAYS", "10"))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(SEED, SEED + PLAYS))
def test_every_message_is_accounted_for_whoever_is_killed(tmp_path: Path, seed: int) -> None:
    with running_hub() as hub:
        play = Play(tmp_path, hub, seed)
        try:
            killed = [play.act() for _ in range(ROUNDS)]
            events = play.end()
        finally:
            play.close()
    found = ledger.audit(events) + ledger.audit_order(events, LONELY)
    counts = Counter(event["kind"] for event in events)
    print(f"FAULT_SEED={seed} FAULT_PLAYS=1: {Counter(killed)}; {counts}")
    assert not found, f"{len(found)} violations with FAULT_SEED={seed}\n" + "\n".join(found[:20])
    assert counts["begin"] > 20 * ROUNDS, counts
