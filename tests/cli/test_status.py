import pytest

from procman.cli.status import format_uptime, plain_table

LAYER = {"name": "layer", "pid": 7, "state": "RUNNING", "uptime": 3.25, "restarts": 0, "exit_status": None}
WORKER = {"name": "worker.1", "pid": None, "state": "BACKOFF", "uptime": 0.0, "restarts": 2, "exit_status": -9}


def test_the_table_is_aligned_and_shows_what_is_missing_as_a_dash() -> None:
    assert plain_table([LAYER, WORKER]).splitlines() == [
        "name      pid  state    uptime  restarts  last exit",
        "layer     7    RUNNING  3.2 s   0         -",
        "worker.1  -    BACKOFF  0.0 s   2         -9",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0.0 s"), (59.94, "59.9 s"), (60, "0:01:00"), (3723.9, "1:02:03"), (360_000, "100:00:00")]
)
def test_uptimes_are_readable(seconds: float, text: str) -> None:
    assert format_uptime(seconds) == text
