"""Consistent hashing: the same everywhere, even, and steady when a server is added."""

import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procman.layers.redis.ring import Ring

NAMES = [f"chat.room-{number}" for number in range(4000)]


def test_the_servers_of_names_are_these_in_every_version() -> None:
    ring = Ring(5)
    assert [ring.index(name) for name in NAMES[:8]] == [0, 4, 1, 1, 2, 3, 2, 0]


def test_another_process_with_another_hash_seed_agrees() -> None:
    code = (
        "from procman.layers.redis.ring import Ring; r = Ring(5); print([r.index(f'chat.room-{n}') for n in range(50)])"
    )
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True
        )
        assert done.stdout.strip() == str([Ring(5).index(name) for name in NAMES[:50]]), done.stderr


@pytest.mark.parametrize("count", [2, 3, 4, 8])
def test_names_spread_evenly(count: int) -> None:
    ring = Ring(count)
    found = Counter(ring.index(name) for name in NAMES)
    assert set(found) == set(range(count))
    assert max(found.values()) < 1.35 * len(NAMES) / count


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_another_server_takes_its_share_and_moves_nothing_else(count: int) -> None:
    before, after = Ring(count), Ring(count + 1)
    moved = [name for name in NAMES if before.index(name) != after.index(name)]
    assert {after.index(name) for name in moved} == {count}
    assert 0.7 < len(moved) * (count + 1) / len(NAMES) < 1.35


@given(st.text(), st.integers(1, 6))
def test_any_name_stays_or_goes_to_the_added_server(name: str, count: int) -> None:
    before, after = Ring(count).index(name), Ring(count + 1).index(name)
    assert after in (before, count)


def test_what_is_remembered_is_bounded_and_does_not_change_the_answer() -> None:
    ring = Ring(3)
    first = [ring.index(name) for name in NAMES[:100]]
    for number in range(10_000):
        ring.index(f"other-{number}")
    assert [ring.index(name) for name in NAMES[:100]] == first
    assert len(ring._known) <= 4096


def test_a_ring_without_servers_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Ring(0)
