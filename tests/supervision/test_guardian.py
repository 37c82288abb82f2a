import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from procman.supervision import guardian


@pytest.fixture
def children() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Two processes with groups of their own."""
    started = [subprocess.Popen(["cat"], stdin=subprocess.PIPE, process_group=0) for _ in range(2)]
    yield started
    for child in started:
        child.kill()
        child.communicate()


def start_guardian() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-I", "-S", guardian.__file__], stdin=subprocess.PIPE)


def test_it_kills_the_groups_that_were_added_and_not_removed(children: list[subprocess.Popen[bytes]]) -> None:
    kept, removed = children
    process = start_guardian()
    process.communicate(b"+%d\n+%d\n-%d\n" % (kept.pid, removed.pid, removed.pid), timeout=10)
    assert process.returncode == 0
    assert kept.wait(10) == -signal.SIGKILL
    assert removed.poll() is None


def test_it_kills_stopped_processes(children: list[subprocess.Popen[bytes]]) -> None:
    os.kill(children[0].pid, signal.SIGSTOP)
    start_guardian().communicate(b"+%d\n" % children[0].pid, timeout=10)
    assert children[0].wait(10) == -signal.SIGKILL


def test_a_group_that_is_gone_already_is_no_error(children: list[subprocess.Popen[bytes]]) -> None:
    children[0].kill()
    children[0].wait()
    process = start_guardian()
    process.communicate(b"+%d\n+%d\n" % (children[0].pid, children[1].pid), timeout=10)
    assert process.returncode == 0
    assert children[1].wait(10) == -signal.SIGKILL
