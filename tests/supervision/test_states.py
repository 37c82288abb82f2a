import signal

import pytest

from procman.supervision.states import ALIVE, MOVES, ProcessInfo, State, describe_exit


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (0, "exited with status 0"),
        (3, "exited with status 3"),
        (-signal.SIGKILL, "was killed by SIGKILL"),
        (-signal.SIGSEGV, "was killed by SIGSEGV"),
        (-40, "was killed by signal 40"),
    ],
)
def test_an_exit_is_described_in_words(status: int, text: str) -> None:
    assert describe_exit(status) == text


def test_every_state_can_be_left_and_reached() -> None:
    assert set(MOVES) == set(State)
    assert set().union(*MOVES.values()) == set(State)
    assert all(moves for moves in MOVES.values())


def test_numbers_are_those_of_supervisor() -> None:
    assert {state.name: state.value for state in State} == {
        "STOPPED": 0, "STARTING": 10, "RUNNING": 20, "BACKOFF": 30, "STOPPING": 40, "EXITED": 100, "FATAL": 200
    }  # fmt: skip
    assert State.BACKOFF not in ALIVE


def test_the_entry_of_status_json() -> None:
    info = ProcessInfo("worker.1", "worker", 4711, State.RUNNING, 12.34567, 1.0, 0.0, 2, -9)
    assert info.to_dict() == {
        "name": "worker.1", "type": "worker", "pid": 4711, "state": "RUNNING", "uptime": 12.346, "restarts": 2,
        "exit_status": -9,
    }  # fmt: skip
