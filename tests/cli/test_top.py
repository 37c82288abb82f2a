"""What ``top`` makes of samples and keys; the terminal itself is in the end-to-end tests."""

from typing import Any

import pytest

from procman.cli.top import Sample, handle, rows, split_keys, summary

LAYER = {"name": "layer", "type": "layer", "pid": 7, "state": "RUNNING", "uptime": 3.25, "restarts": 0}
WORKER = {"name": "worker.1", "type": "worker", "pid": 9, "state": "RUNNING", "uptime": 75.0, "restarts": 2}
DOWN = {"name": "worker.2", "type": "worker", "pid": None, "state": "STOPPED", "uptime": 0.0, "restarts": 0}
COUNTS = {
    "sockets": 3,
    "messages_count_per_second": 12.4,
    "messages_pending": 5,
    "in_flight": 2,
    "messages_max_age": 0.1,
}
BEFORE = Sample(10.0, [LAYER, WORKER, DOWN], {7: 1.0, 9: 5.0}, {7: 2**20, 9: 2**21})
NOW = Sample(12.0, [LAYER, WORKER, DOWN], {7: 1.0, 9: 6.0, 11: 1.0}, {7: 2**20, 9: 2**21}, COUNTS)


class Site:
    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def ask(self, what: str, method: str, *parameters: Any) -> None:
        self.asked.append((method, *parameters))


def test_rows_have_the_cpu_since_the_look_before() -> None:
    assert rows(NOW, BEFORE) == [
        ("layer", "7", "RUNNING", "3.2 s", "0", "0", "1"),
        ("worker.1", "9", "RUNNING", "0:01:15", "2", "50", "2"),
        ("worker.2", "-", "STOPPED", "0.0 s", "0", "-", "-"),
    ]
    assert [row[5] for row in rows(NOW, None)] == ["-", "-", "-"]


def test_the_summary_is_what_the_layer_counts() -> None:
    assert summary(NOW).split("   ") == [
        "3 sockets", "12 messages/s", "5 wait", "2 in flight", "oldest 0.1 s", "3 MiB"
    ]  # fmt: skip
    assert summary(BEFORE) == "3 MiB"


def test_keys_that_come_at_once_are_each_one() -> None:
    assert split_keys("jj\x1b[Ar") == ["j", "j", "\x1b[A", "r"]


@pytest.mark.parametrize(
    ("key", "selected", "after", "asked"),
    [
        ("j", 0, 1, []),
        ("\x1b[B", 2, 2, []),
        ("\x1b[A", 2, 1, []),
        ("k", 0, 0, []),
        ("q", 0, None, []),
        ("\x03", 0, None, []),
        ("x", 1, 1, []),
        ("r", 1, 1, [("procman.restart", "worker.1")]),
        ("s", 1, 1, [("procman.stop", "worker.1")]),
        ("s", 2, 2, [("procman.start", "worker.2")]),
        ("s", 99, 99, [("procman.start", "worker.2")]),
        ("+", 0, 0, [("procman.scale", "worker", 3)]),
        ("-", 0, 0, [("procman.scale", "worker", 1)]),
    ],
)
def test_keys_choose_and_ask(key: str, selected: int, after: int | None, asked: list[tuple[Any, ...]]) -> None:
    site = Site()
    assert handle(key, site, NOW, selected) == after  # type: ignore[arg-type]
    assert site.asked == asked
