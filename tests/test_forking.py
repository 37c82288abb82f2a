"""Processes forked for another parent: a server in a process of its own, this one as its client."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from procman.forking import ForkServer, Report
from procman.supervision.spawn import become_subreaper
from tests.support.waiting import wait_until

SERVER = """
import os, signal, socket, sys
from procman.forking import report, serve
control = socket.socket(fileno=int(sys.argv[1]))
report(control, sys.argv[2], {"said": 1})
if serve(control):
    os.write(int(os.environ["READY"]), b"1")
    print("child", os.environ["NAME"], os.getpid() == os.getsid(0) == os.getpgid(0), flush=True)
    signal.pause()
"""


@pytest.fixture
def server() -> Iterator[tuple[ForkServer, subprocess.Popen[bytes]]]:
    become_subreaper()
    forks = ForkServer()
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(forks.theirs), ""], pass_fds=(forks.theirs,))
    forks.started()
    yield forks, process
    forks.close()
    process.kill()
    process.wait(5)


def test_a_child_belongs_to_the_client_has_its_descriptors_and_its_environment(
    server: tuple[ForkServer, subprocess.Popen[bytes]],
) -> None:
    forks, process = server
    assert forks.report() == Report("", {"said": 1})
    os.kill(process.pid, signal.SIGTERM)  # as a platform does to all; it ends with its socket
    pids = []
    for name in ("one", "two"):
        (out, out_write), (ready, ready_write) = os.pipe(), os.pipe()
        pid = forks.fork({"NAME": name}, out_write, {"READY": ready_write})
        os.close(out_write)
        os.close(ready_write)
        assert os.read(ready, 1) == b"1"
        said = b""
        while not said.endswith(b"\n"):  # it prints a word at a time
            said += os.read(out, 1000)
        assert said == f"child {name} True\n".encode()
        assert psutil.Process(pid).ppid() == os.getpid() != process.pid
        os.kill(pid, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM
        assert os.read(out, 1) == b""  # nobody else has it
        for fd in (out, ready):
            os.close(fd)
        pids.append(pid)
    assert psutil.Process(process.pid).children() == []
    assert pids[0] != pids[1]


def test_a_child_outlives_its_server(server: tuple[ForkServer, subprocess.Popen[bytes]]) -> None:
    forks, process = server
    forks.report()
    ready, write = os.pipe()
    pid = forks.fork({"NAME": "x"}, write, {"READY": write})
    assert os.read(ready, 1) == b"1"
    process.kill()
    process.wait(5)
    assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(ready)
    os.close(write)


def test_a_server_that_is_gone_or_stopped_is_an_error_in_time(
    server: tuple[ForkServer, subprocess.Popen[bytes]],
) -> None:
    forks, process = server
    forks.report()
    forks._ours.settimeout(0.2)
    os.kill(process.pid, signal.SIGSTOP)
    wait_until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)
    with pytest.raises(OSError, match="timed out"):
        forks.fork({}, 1, {})
    process.kill()
    process.wait(5)
    with pytest.raises(OSError):
        forks.fork({}, 1, {})


def test_a_server_ends_with_its_client(server: tuple[ForkServer, subprocess.Popen[bytes]]) -> None:
    forks, process = server
    forks.report()
    forks.close()
    assert process.wait(5) == 0


def test_the_report_has_the_reason_of_the_server_or_why_there_is_none() -> None:
    forks = ForkServer()
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, str(forks.theirs), "it is busy"], pass_fds=(forks.theirs,)
    ) as process:
        forks.started()
        assert forks.report().unsafe == "it is busy"
        process.kill()
    assert "does not answer" in forks.report().unsafe
    forks.close()
