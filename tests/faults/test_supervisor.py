"""What must not hurt the supervisor, fault by fault, on real processes. Elsewhere:

=========================================================  ===========================================
kill -9 of a worker, of the interface, of the layer        tests/e2e/test_kill.py, tests/faults/test_kill.py
kill -9 of the supervisor, of the guardian                 tests/supervision/test_engine.py
kill -9, SIGSTOP of the preloader; SIGSTOP of a worker     tests/e2e/test_preloader.py, test_worker_limits.py
an output that nobody reads, that is closed, a full disk   tests/supervision/test_engine.py
a held pipe, a grandchild that left its group              tests/supervision/test_engine.py
the terminal has gone                                      tests/supervision/test_engine.py
a Redis that goes away                                     tests/e2e/test_redis_faults.py
hosts that are cut off                                     tests/e2e/test_hosts.py
jumps of the clock                                         rules take a monotonic time: test_policy.py
=========================================================  ===========================================
"""

import contextlib
import os
import pty
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from procman.supervision import control
from tests.support.processes import Site, copy_project, descendants, free_port, is_alive, running_site
from tests.support.supervised import kind, supervised, supervisor_command
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


def test_sigterm_within_milliseconds_of_a_respawn_is_never_lost(tmp_path: Path) -> None:
    """Between fork and exec a signal could meet the parent's handler in the child, and be lost there."""
    chance = random.Random(7)
    for number in range(50):
        directory = tmp_path / str(number)
        directory.mkdir()
        with supervised(directory, kind("worker", "quiet"), shutdown_timeout=8.0) as site:
            os.kill(site.pids("worker.1")[0], signal.SIGKILL)
            select.select([], [], [], chance.uniform(0, 0.008))
            asked = time.monotonic()
            assert site.stop() == 0
            assert time.monotonic() - asked < 4.0, site.log


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_sigterm_to_every_process_of_a_site_at_different_moments_three_times(tmp_path: Path, seed: int) -> None:
    """As Heroku stops a dyno: all at once, in any order, several times."""
    directory = copy_project(tmp_path / "project")
    chance = random.Random(seed)
    with running_site(directory, "--workers", "2") as site:
        everybody = [site.pid, *sorted(descendants(site.pid))]
        moments = sorted((chance.uniform(0, 0.2), pid) for pid in everybody for _ in range(3))
        began = time.monotonic()
        for moment, pid in moments:
            select.select([], [], [], max(0.0, began + moment - time.monotonic()))
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        assert site.process is not None and site.process.wait(12) == 0
        assert site.log.count("worker ready") == 2, site.log
        assert site.log.count("interface ready") == 1 and site.log.count("layer ready") == 1
        assert "did not stop in time" not in site.log


def test_a_supervisor_that_was_stopped_for_a_while_kills_nobody_and_goes_on(tmp_path: Path) -> None:
    with supervised(tmp_path, kind("worker", "beating", count=2), liveness_timeout=2.0) as site:
        pids = [site.pids("worker.1")[0], site.pids("worker.2")[0]]
        site.find("all ready")
        site.send(signal.SIGSTOP)
        select.select([], [], [], 3.0)
        os.kill(pids[0], signal.SIGKILL)
        site.send(signal.SIGCONT)
        assert len(site.pids("worker.1", 2)) == 2
        select.select([], [], [], 2.0)
        assert len(site.pids("worker.2")) == 1 and "no life" not in site.log
        assert site.stop() == 0


def test_a_control_client_that_dies_in_the_middle_of_a_call_is_forgotten(tmp_path: Path) -> None:
    with supervised(tmp_path, kind("worker", "slow_ready", "0.5", count=2)) as site:
        site.find("all ready")
        code = f"from procman.supervision import control; control.call({site.control!r}, 'procman.restart', 'worker')"
        for moment in (0.05, 0.3, 0.6):
            client = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
            select.select([], [], [], moment)
            client.kill()
            client.wait()
        # Half a request, an endless one, and one that is none.
        for data in (b"POST /RPC2 HTTP/1.1\r\nContent-Le", b"POST /RPC2 HTTP/1.1\r\n" + b"A: b\r\n" * 100_000, b"\0\n"):
            with socket.socket(socket.AF_UNIX) as odd, contextlib.suppress(OSError):
                odd.connect(site.control)
                odd.sendall(data)
        states = wait_until(
            lambda: {p["name"]: p["state"] for p in control.call(site.control, "procman.status")["processes"]}, 10
        )
        assert set(states) >= {"worker.1", "worker.2"}
        wait_until(lambda: "~" not in str(control.call(site.control, "procman.status")), 10)
        with socket.socket(socket.AF_UNIX) as idle:
            idle.connect(site.control)
            idle.sendall(b"POST /RPC2 HTTP/1.1\r\nContent-Length: 1\r\n\r\nx")
            assert idle.recv(15) == b"HTTP/1.1 200 OK"
            assert site.stop() == 0
        assert "Traceback" not in site.log


def run_limited(directory: Path, limit: str, *types: object, timeout: float = 60.0) -> subprocess.Popen[bytes]:
    """A supervisor below prlimit(1); its log is in *directory*."""
    prlimit = shutil.which("prlimit")
    if prlimit is None:
        pytest.skip("prlimit is not installed")
    with (directory / "log").open("wb") as log:
        return subprocess.Popen(
            [prlimit, limit, *supervisor_command(directory, *types)],  # type: ignore[arg-type]
            stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=ROOT,
        )  # fmt: skip


def test_no_descriptor_left_for_another_process_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    process = run_limited(tmp_path, "--nofile=40", kind("worker", "quiet", count=20, is_optional=True))
    try:
        log = tmp_path / "log"
        wait_until(lambda: "could not be started: Too many open files" in log.read_text(), 20)
        wait_until(lambda: log.read_text().count("| ready ") >= 3, 20)
        assert process.poll() is None
        process.terminate()
        assert process.wait(15) == 0
        assert "Traceback" not in log.read_text()
    finally:
        process.kill()
        process.wait()


def test_no_process_left_is_told_and_made_up_for_when_there_is_room_again(tmp_path: Path) -> None:
    """As another user, since root has no such limit."""
    setpriv = shutil.which("setpriv")
    if setpriv is None or os.getuid() != 0:
        pytest.skip("needs root and setpriv")
    rights = "+dac_override,+dac_read_search"  # it may read what root may: this project and its interpreter
    other = [setpriv, "--reuid", "59123", "--clear-groups", f"--inh-caps={rights}", f"--ambient-caps={rights}"]
    crowd = (
        "import os, signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\npids = []\n"
        "for _ in range(30):\n    pids.append(os.fork())\n    if not pids[-1]: signal.sigtimedwait((), 100)\n"
        "print(1, flush=True)\nsignal.sigwait([signal.SIGTERM])\n"
        "for pid in pids: os.kill(pid, 9); os.waitpid(pid, 0)\n"
    )
    others = subprocess.Popen([*other, sys.executable, "-S", "-c", crowd], stdout=subprocess.PIPE)
    assert others.stdout is not None and others.stdout.read(1) == b"1"
    command = [*other, "prlimit", "--nproc=34",
               *supervisor_command(tmp_path, kind("worker", "quiet", count=6, is_optional=True))]  # fmt: skip
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, cwd=ROOT)
    try:
        wait_until(lambda: "could not be started: Resource temporarily unavailable" in log.read_text(), 20)
        others.terminate()
        assert others.wait(10) == 0
        wait_until(lambda: len(set(log.read_text().split("| ready ")[1:])) >= 6, 60)
        process.terminate()
        assert process.wait(15) == 0
    finally:
        others.stdout.close()
        others.terminate()
        process.kill()
        for each in (others, process):
            each.wait()


def zombies_below(pid: int) -> list[int]:
    found = []
    for each in descendants(pid):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                found.append(each)
    return found


def test_as_process_1_it_reaps_what_others_leave_behind_and_stops_when_asked(tmp_path: Path) -> None:
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "--pid", "--fork", "true"], check=False).returncode:
        pytest.skip("no process namespaces here")
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [unshare, "--pid", "--fork", "--mount-proc", "--kill-child",
             *supervisor_command(tmp_path, kind("maker", "orphans", "5"), kind("worker", "quiet"))],
            stdout=output, stderr=output, stdin=subprocess.DEVNULL, cwd=ROOT,
        )  # fmt: skip
    try:
        wait_until(lambda: "all ready" in log.read_text() and "orphans made" in log.read_text(), 20)
        wait_until(lambda: not zombies_below(process.pid), 10)
        (first,) = [pid for pid in descendants(process.pid) if _parent(pid) == process.pid]
        below = descendants(first)
        os.kill(first, signal.SIGTERM)
        assert process.wait(12) == 0
        assert not [pid for pid in below if is_alive(pid)]
    finally:
        process.kill()
        process.wait()


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_ctrl_c_reaches_each_process_once_and_a_second_one_forces(tmp_path: Path) -> None:
    pid, master = pty.fork()
    if pid == 0:
        try:
            os.chdir(ROOT)
            command = supervisor_command(tmp_path, kind("worker", "counts_interrupts"), shutdown_timeout=60.0)
            os.execv(command[0], command)
        finally:
            os._exit(99)
    seen = b""

    def read_until(text: bytes) -> None:
        nonlocal seen
        while text not in seen:
            assert select.select([master], [], [], 10)[0], seen
            seen += os.read(master, 4096)

    read_until(b"all ready")
    os.write(master, b"\x03")  # the terminal makes it a SIGINT for its foreground group
    read_until(b"stopping, within 60 s")
    # It ignores its SIGTERM, and tells of every SIGINT.
    os.write(master, b"\x03")
    read_until(b"forced")
    with contextlib.suppress(OSError):
        while select.select([master], [], [], 5)[0]:
            seen += os.read(master, 4096)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130
    assert b"interrupted" not in seen
    os.close(master)


def test_a_system_without_pidfd_notices_deaths_by_signals(tmp_path: Path) -> None:
    environ = {"TEST_WITHOUT_PIDFD": "1"}
    with supervised(tmp_path, kind("worker", "quiet", count=3), environ=environ) as site:
        first = site.pids("worker.2")[0]
        site.find("all ready")
        for pid in (first, site.pids("worker.3")[0]):
            os.kill(pid, signal.SIGKILL)
        assert len(site.pids("worker.2", 2)) == len(site.pids("worker.3", 2)) == 2
        killed = site.pids("worker.2", 2)[1]
        os.kill(killed, signal.SIGSTOP)
        os.kill(killed, signal.SIGKILL)
        assert len(site.pids("worker.2", 3)) == 3
        assert site.stop() == 0


def test_a_redis_that_accepts_and_never_answers_does_not_hold_up_the_end(tmp_path: Path) -> None:
    directory = copy_project(tmp_path / "project")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        site = Site(directory, ("--port", str(free_port()), "--layer", f"redis://127.0.0.1:{port}/0",
                                "--shutdown-timeout", "4"))  # fmt: skip
        with (directory / "channels-run.log").open("wb") as log:
            site.process = subprocess.Popen(
                site.command, cwd=directory, env=site.environ, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        try:
            wait_until(lambda: "limits: " in site.log, 20)
            select.select([], [], [], 2.0)
            asked = time.monotonic()
            status = site.stop(timeout=15)
            assert status in (0, 4) and time.monotonic() - asked < 5
            assert "Traceback" not in site.log
        finally:
            if site.process.poll() is None:
                site.process.kill()
