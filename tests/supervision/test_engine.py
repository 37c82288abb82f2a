import contextlib
import os
import pty
import re
import select
import signal
import time
from pathlib import Path

import pytest

from procman.supervision import states
from procman.supervision.guardian import __file__ as guardian_file
from tests.support.processes import descendants, is_alive
from tests.support.supervised import Supervised, kind, supervised, supervisor_command
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow


def test_a_killed_process_is_replaced_well_within_a_second(tmp_path: Path) -> None:
    with supervised(tmp_path, kind("worker", "quiet", count=2)) as site:
        first = site.pids("worker.1")[0]
        site.find("all ready")
        os.kill(first, signal.SIGKILL)
        killed = time.monotonic()
        second = site.pids("worker.1", 2)[1]
        assert time.monotonic() - killed < 0.9
        assert second != first
        assert len(site.pids("worker.2")) == 1
        assert f"worker.1 (pid {first}) was killed by SIGKILL after" in site.log
        assert site.stop() == 0


def test_grandchildren_die_with_their_leader_before_it_is_replaced(tmp_path: Path) -> None:
    with supervised(tmp_path, kind("worker", "holder")) as site:
        grandchild = int(site.find(r"grandchild (\d+)")[0])
        leader = next(pid for pid in map(int, site.find(r"ready (\d+)", 2)) if pid != grandchild)
        os.kill(leader, signal.SIGKILL)
        site.find(r"grandchild (\d+)", 2)
        wait_until(lambda: not is_alive(grandchild), 2)
        assert site.stop() == 0


def test_an_orphan_that_left_its_group_is_reaped_and_does_not_outlive_the_supervisor(tmp_path: Path) -> None:
    with supervised(tmp_path, kind("worker", "holder", "setsid", count=1)) as site:
        grandchild = int(site.find(r"grandchild (\d+)")[0])
        leader = next(pid for pid in map(int, site.find(r"ready (\d+)", 2)) if pid != grandchild)
        os.kill(leader, signal.SIGKILL)
        second = int(site.find(r"grandchild (\d+)", 2)[1])
        assert is_alive(grandchild)
        os.kill(grandchild, signal.SIGKILL)
        wait_until(lambda: not Path(f"/proc/{grandchild}").exists(), 5, what="the orphan is reaped")
        site.find(r"ready (\d+)", 4)
        assert site.stop() == 0
        assert not is_alive(second)


def test_nothing_survives_kill_9_of_the_supervisor(tmp_path: Path) -> None:
    types = [kind("layer", "lifetime", single=True, stops_by_lifetime=True), kind("worker", "holder", count=2)]
    with supervised(tmp_path, *types, kind("stopped", "stubborn")) as site:
        site.find(r"ready \d+", 6)
        site.find(r"grandchild (\d+)", 2)
        os.kill(site.pids("stopped.1")[0], signal.SIGSTOP)
        below = descendants(site.process.pid)
        assert len(below) == 7  # the guardian, the layer, two workers and their children, the stopped one
        os.kill(site.process.pid, signal.SIGKILL)
        wait_until(lambda: not any(is_alive(pid) for pid in below), 1, what="all gone within a second")


def test_what_has_left_its_group_does_not_survive_kill_9_of_the_supervisor_either(tmp_path: Path) -> None:
    environ = {"PROCMAN_RUN": f"test-{os.getpid()}"}
    with supervised(tmp_path, kind("worker", "holder", "setsid"), environ=environ) as site:
        grandchild = int(site.find(r"grandchild (\d+)")[0])
        site.find(r"ready \d+", 2)
        assert os.getsid(grandchild) == grandchild
        # The supervisor itself is no process of this run: it has the variable here, as whoever started it.
        os.kill(site.process.pid, signal.SIGKILL)
        wait_until(lambda: not is_alive(grandchild), 2)


def guardian_of(supervisor: int) -> int:
    """The process id of the supervisor's guardian."""

    def look() -> int:
        for pid in descendants(supervisor):
            with contextlib.suppress(OSError):
                if os.fsencode(guardian_file) in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                    return pid
        return 0

    return wait_until(look, 10)


def test_a_killed_guardian_is_replaced_and_its_successor_knows_every_group(tmp_path: Path) -> None:
    with supervised(tmp_path, kind("worker", "holder")) as site:
        site.find("all ready")
        below = descendants(site.process.pid)
        first = guardian_of(site.process.pid)
        os.kill(first, signal.SIGTERM)  # which it ignores: platforms send it to everybody
        os.kill(first, signal.SIGKILL)
        site.find("guardian .* has gone")
        guardian_of(site.process.pid)
        os.kill(site.process.pid, signal.SIGKILL)
        wait_until(lambda: not any(is_alive(pid) for pid in below), 2)


def test_a_stop_ends_in_order_with_status_0(tmp_path: Path) -> None:
    types = [
        kind("layer", "lifetime", single=True, stop_phase=2, stops_by_lifetime=True),
        kind("interface", "polite", stop_phase=0),
        kind("worker", "polite", count=2, stop_phase=1),
    ]
    with supervised(tmp_path, *types) as site:
        site.find(r"ready \d+", 4)
        asked = time.monotonic()
        assert site.stop() == 0
        assert time.monotonic() - asked < 1.0
        told = re.findall(r"(\S+) +\| (?:asked to stop|lifetime is over)", site.log)
        assert (told[0], set(told[1:3]), told[3]) == ("interface.1", {"worker.1", "worker.2"}, "layer")
        assert not Path(site.control).exists()


def test_stubborn_processes_share_one_deadline(tmp_path: Path) -> None:
    types = [kind("interface", "stubborn", stop_phase=0), kind("worker", "stubborn", count=2, stop_phase=1)]
    with supervised(tmp_path, *types, shutdown_timeout=2.0) as site:
        site.find(r"ready \d+", 3)
        asked = time.monotonic()
        assert site.stop() == 0
        assert 0.9 < time.monotonic() - asked < 2.2
        assert "worker.2 (pid" in site.log and "did not stop in time; killing it" in site.log


def test_sigterm_at_any_moment_of_a_restart_stops_everything_at_once(tmp_path: Path) -> None:
    for number in range(12):
        directory = tmp_path / str(number)
        directory.mkdir()
        with supervised(directory, kind("worker", "quiet", count=2)) as site:
            site.find("all ready")
            os.kill(site.pids("worker.1")[0], signal.SIGKILL)
            select.select([], [], [], number * 0.0007)
            asked = time.monotonic()
            assert site.stop() == 0
            assert time.monotonic() - asked < 2.0, site.log


def test_many_sigterms_do_not_force_but_a_second_sigint_does(tmp_path: Path) -> None:
    with supervised(tmp_path, kind("worker", "stubborn"), shutdown_timeout=60.0) as site:
        site.find("all ready")
        for _ in range(3):
            site.send(signal.SIGTERM)
        site.find("stopping, within 60 s")
        site.send(signal.SIGINT)
        site.send(signal.SIGINT)
        asked = time.monotonic()
        # Signals that arrive together may be one; the third is the second for certain.
        wait_until(lambda: site.process.poll() is not None or site.send(signal.SIGINT), 10, interval=0.2)
        assert time.monotonic() - asked < 5
        assert site.wait() == states.FORCED
        assert "forced" in site.log


def test_a_type_that_never_starts_ends_the_supervisor_with_a_status_of_its_own(tmp_path: Path) -> None:
    with supervised(tmp_path, kind("worker", "quiet"), kind("interface", "die", "7")) as site:
        assert site.wait() == states.NEVER_READY
        assert "interface.1" in site.log and "exited with status 7" in site.log and "giving up" in site.log
        assert len(re.findall(r"dying \d+", site.log)) == 5


def test_a_program_that_does_not_exist_ends_the_supervisor_too(tmp_path: Path) -> None:
    with supervised(tmp_path, {"name": "worker", "argv": ["/no/such/program"]}) as site:
        assert site.wait() == states.NEVER_READY
        assert "could not be started: No such file or directory (/no/such/program)" in site.log


def test_a_process_that_is_never_ready_uses_up_the_startup_time(tmp_path: Path) -> None:
    with supervised(tmp_path, kind("worker", "never_ready"), startup_timeout=1.0) as site:
        assert site.wait() == states.NEVER_READY
        assert "no worker was ready within 1 s; giving up" in site.log


def test_ready_is_said_when_the_slowest_type_is(tmp_path: Path) -> None:
    with supervised(tmp_path, kind("a", "quiet"), kind("b", "slow_ready", "0.3")) as site:
        site.find("all ready")
        assert re.search(r"b.1 +\| ready \d+(.|\n)*system +\| all ready", site.log) or site.pids("b.1")
        assert site.log.count("all ready") == 1
        assert site.stop() == 0


def test_a_death_by_a_sigterm_of_somebody_else_is_held_back(tmp_path: Path) -> None:
    with supervised(tmp_path, kind("worker", "quiet")) as site:
        first = site.pids("worker.1")[0]
        os.kill(first, signal.SIGTERM)
        site.find(r"was killed by SIGTERM after .*; restarting in 0.25 s")
        site.pids("worker.1", 2)
        assert site.stop() == 0


def test_a_sigterm_to_everybody_starts_nothing_again(tmp_path: Path) -> None:
    with supervised(tmp_path, kind("worker", "quiet", count=3)) as site:
        site.find(r"ready \d+", 3)
        for pid in descendants(site.process.pid) | {site.process.pid}:
            with contextlib.suppress(ProcessLookupError):  # the others' end has begun with the first
                os.kill(pid, signal.SIGTERM)
        assert site.wait() == 0
        assert len(re.findall(r"ready \d+", site.log)) == 3


def test_sighup_replaces_the_workers_one_after_the_other(tmp_path: Path) -> None:
    with supervised(tmp_path, kind("interface", "quiet"), kind("worker", "polite", count=3)) as site:
        site.find(r"ready \d+", 4)
        site.find("all ready")
        site.send(signal.SIGHUP)
        for number in (1, 2, 3):
            site.pids(f"worker.{number}", 2)
        assert len(site.pids("interface.1")) == 1
        after = site.log.partition("restarting worker.1, worker.2, worker.3")[2]
        steps = re.findall(r"(worker.\d) +\| (asked|ready)", after)
        assert steps == [(f"worker.{n}", step) for n in (1, 2, 3) for step in ("asked", "ready")]
        assert site.stop() == 0


def test_children_get_a_clean_environment(tmp_path: Path) -> None:
    with supervised(tmp_path, kind("worker", "environment", env={"EXTRA": "1"})) as site:
        site.find("all ready")
        for expected in ("PYTHONUNBUFFERED=1", "PROCMAN_NAME=worker.1", "EXTRA=1"):
            assert f"| {expected}\n" in site.log
        assert "FORCE_COLOR" not in site.log


def test_any_bytes_pass_through(tmp_path: Path) -> None:
    with supervised(tmp_path, kind("worker", "binary")) as site:
        site.find("all ready")
        content = bytes(byte for byte in range(256) if byte != 10)
        assert b"worker.1 | <" + content + b">\n" in site.log_path.read_bytes()


def test_a_prompt_is_shown_although_its_line_has_not_ended(tmp_path: Path) -> None:
    with supervised(tmp_path, kind("worker", "partial")) as site:
        site.find(r"worker.1 \| prompt> \n")


def test_lines_of_several_flooding_processes_stay_whole_in_order_and_complete(tmp_path: Path) -> None:
    with supervised(tmp_path, kind("worker", "flood", "2", count=3)) as site:
        site.find("flooded", 3)
        for number in (1, 2, 3):
            lines = re.findall(rf"^worker.{number} \| (\d{{99}})$", site.log, re.MULTILINE)
            assert [int(line) for line in lines] == list(range(20_000))
        assert site.stop() == 0


def test_a_reader_that_does_not_read_delays_neither_restarts_nor_the_stop(tmp_path: Path) -> None:
    read, write = os.pipe()
    try:
        with supervised(tmp_path, kind("chatty", "forever"), kind("worker", "quiet"), stdout=write) as site:
            os.close(write)
            pids = wait_until(lambda: children_in(site, "quiet"), 10)
            # The pipe and the buffer are full when the flooding process cannot write any more.
            chatty = children_in(site, "forever")[0]
            wait_until(lambda: Path(f"/proc/{chatty}/wchan").read_text() != "" and is_blocked(chatty), 10)
            os.kill(pids[0], signal.SIGKILL)
            wait_until(lambda: (now := children_in(site, "quiet")) and now != pids, 5)
            asked = time.monotonic()
            site.send(signal.SIGTERM)
            assert site.wait() == 0
            assert time.monotonic() - asked < 2.0  # a second of it waits for the reader
    finally:
        os.close(read)


def children_in(site: Supervised, mode: str) -> list[int]:
    """Process ids of the test children that run in *mode*."""
    found = []
    for pid in descendants(site.process.pid):
        with contextlib.suppress(OSError):
            if mode.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                found.append(pid)
    return found


def is_blocked(pid: int) -> bool:
    """Whether the process waits, and used no processor time in between two looks."""

    def look() -> tuple[str, str]:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return fields[0], fields[11] + fields[12]

    first = look()
    select.select([], [], [], 0.1)
    return first[0] == "S" and look() == first


def test_a_closed_output_ends_everything_without_a_traceback(tmp_path: Path) -> None:
    read, write = os.pipe()
    with supervised(tmp_path, kind("worker", "forever"), stdout=write) as site:
        os.close(write)
        assert os.read(read, 10)
        os.close(read)
        assert site.wait() == states.OUTPUT_CLOSED
        assert site.log == ""


def test_a_full_disk_does_not_end_the_site(tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        with supervised(tmp_path, kind("worker", "quiet"), stdout=full) as site:
            wait_until(lambda: children_in(site, "quiet"), 10)
            assert site.stop() == 0


def read_terminal(site_options: dict[str, str], directory: Path, until: bytes) -> bytes:
    """What a supervisor prints on a terminal until the text *until*."""
    master, slave = pty.openpty()
    try:
        with supervised(directory, kind("worker", "environment"), stdout=slave, environ=site_options) as site:
            os.close(slave)
            seen = b""
            while until not in seen:
                assert select.select([master], [], [], 10)[0], seen
                seen += os.read(master, 4096)
            site.send(signal.SIGTERM)
            with contextlib.suppress(OSError):  # the terminal's end
                while os.read(master, 4096):
                    pass
            assert site.wait() == 0
            return seen
    finally:
        os.close(master)


def test_a_terminal_gets_colors_and_children_are_told(tmp_path: Path) -> None:
    seen = read_terminal({}, tmp_path, b"all ready")
    assert b"\x1b[36mworker.1 | \x1b[0mFORCE_COLOR=1" in seen


def test_no_color_switches_them_off(tmp_path: Path) -> None:
    seen = read_terminal({"NO_COLOR": "1"}, tmp_path, b"all ready")
    assert b"\x1b" not in seen
    assert b"FORCE_COLOR" not in seen


def test_a_terminal_that_has_gone_means_stop(tmp_path: Path) -> None:
    """The supervisor leads a session on the terminal, as after ``ssh host channels-run`` whose connection breaks."""
    pid, master = pty.fork()
    if pid == 0:
        try:
            os.chdir(Path(__file__).parents[2])
            command = supervisor_command(tmp_path, kind("worker", "quiet"))
            os.execv(command[0], command)
        finally:
            os._exit(99)
    seen = b""
    while b"all ready" not in seen:
        assert select.select([master], [], [], 10)[0], seen
        seen += os.read(master, 4096)
    below = descendants(pid)
    os.close(master)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) in (0, states.OUTPUT_CLOSED)
    wait_until(lambda: not any(is_alive(p) for p in below), 2)


def test_stdin_of_children_is_empty_and_their_group_is_their_own(tmp_path: Path) -> None:
    with supervised(tmp_path, kind("worker", "quiet")) as site:
        pid = site.pids("worker.1")[0]
        assert Path(f"/proc/{pid}/fd/0").readlink() == Path("/dev/null")
        assert os.getpgid(pid) == os.getsid(pid) == pid
