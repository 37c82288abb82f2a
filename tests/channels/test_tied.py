"""A program that ends with its parent."""

import os
import subprocess
import sys

import pytest

from procman.channels import tied
from tests.support.processes import is_alive
from tests.support.waiting import wait_until

# Starts the program below it, says its pid, and waits to be killed.
PARENT = """
import os, subprocess, sys
tie = [sys.executable, "-I", "-S", sys.argv[1], str(os.getpid())]
program = "import sys, threading; print('up', flush=True); threading.Event().wait()"
child = subprocess.Popen([*tie, sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
child.stdout.readline()
print(child.pid, flush=True)
child.wait()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="tied on Linux only")
def test_a_killed_parent_takes_the_program_with_it() -> None:
    command = [sys.executable, "-c", PARENT, tied.__file__]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
        parent.kill()
        parent.wait(10)
        wait_until(lambda: not is_alive(pid))


def test_the_status_is_that_of_the_program() -> None:
    tie = [sys.executable, "-I", "-S", tied.__file__, str(os.getpid())]
    assert subprocess.run([*tie, sys.executable, "-c", "raise SystemExit(3)"], check=False).returncode == 3


@pytest.mark.skipif(sys.platform != "linux", reason="tied on Linux only")
def test_a_parent_that_has_died_already_starts_nothing() -> None:
    tie = [sys.executable, "-I", "-S", tied.__file__, "1"]
    done = subprocess.run([*tie, sys.executable, "-c", "print('up')"], check=False, capture_output=True)
    assert (done.returncode, done.stdout) == (1, b"")
