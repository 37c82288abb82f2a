"""The rows of ``scripts/bench supervisor``: what is asked of each supervisor, and what is measured."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil

from benchmarks.rows import GUNICORN, Row, Sample, Server, running, wait_for_answer, worker_pids
from benchmarks.supervisor import contestants
from benchmarks.supervisor.contestants import HONCHO, OURS, SETTLE, SUPERVISORD, Formation
from procman.errors import ProcmanError
from procman.supervision import control

MB = 1_000_000
IDLE_SECONDS = 20.0  # two signs of life of each worker are within
BLOCKED_LIMIT = 10.0  # seconds after which something that has not happened counts as this
QUIET = {"one": ["quiet"], "two": ["quiet"], "three": ["quiet"]}
_LINE = re.compile(rb"<(\w+) (\d{10}) x+>\r?$")
_SITE = (sys.executable, "-m", "procman", "start", "--port", "{port}", "--no-access-log", "--platform", "none")


def _time(seconds: float) -> Sample:
    return _amount(seconds * 1000)


def _amount(amount: float, **more: float) -> Sample:
    return {"rate": amount, "p50_ms": float("nan"), "p99_ms": float("nan"), **more}


@contextlib.contextmanager
def _site(server: Server) -> Iterator[subprocess.Popen[bytes]]:
    with running(server) as (port, process, project):
        wait_for_answer(port, process, project)
        yield process


# -- processes -------------------------------------------------------------------------------------------------------


def _kill(formation: Formation, name: str, limit: float) -> float:
    """Seconds from ``kill -9`` of *name* until its successor runs its first line."""
    pid, _ = formation.marks(name)[-1]
    count = len(formation.marks(name))
    killed = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    try:
        return formation.wait_for(name, count=count + 1, timeout=limit)[1] - killed
    except TimeoutError:
        return limit


def _respawn(server: Server, seconds: float) -> Sample:
    with contestants.running(server.command[0], QUIET) as formation:
        time.sleep(SETTLE)
        return _time(_kill(formation, "two", BLOCKED_LIMIT))


def _stop(server: Server, seconds: float) -> Sample:
    if server.command[0] in (OURS, SUPERVISORD, HONCHO):
        with contestants.running(server.command[0], QUIET) as formation:
            time.sleep(SETTLE)
            return _time(_end(formation.process, BLOCKED_LIMIT))
    with _site(server) as process:
        time.sleep(SETTLE)
        return _time(_end(process, BLOCKED_LIMIT))


def _end(process: subprocess.Popen[bytes], limit: float) -> float:
    """Seconds from SIGTERM to the end."""
    asked = time.monotonic()
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(limit)
    except subprocess.TimeoutExpired:
        return limit
    return time.monotonic() - asked


def _own_switches(processes: list[psutil.Process]) -> int:
    return sum(process.num_ctx_switches().voluntary for process in processes)


@contextlib.contextmanager
def _idle(server: Server) -> Iterator[list[psutil.Process]]:
    """The processes of an idle supervisor, without what it supervises."""
    if server.command[0] in (OURS, SUPERVISORD, HONCHO):
        with contestants.running(server.command[0], QUIET) as formation:
            time.sleep(SETTLE)
            yield formation.own_processes()
    else:
        with _site(server) as process:
            time.sleep(SETTLE)
            yield [psutil.Process(process.pid)]


def _wakeups(server: Server, seconds: float) -> Sample:
    with _idle(server) as processes:
        before = _own_switches(processes)
        time.sleep(IDLE_SECONDS)
        return _amount((_own_switches(processes) - before) / IDLE_SECONDS)


def _memory(server: Server, seconds: float) -> Sample:
    with _idle(server) as processes:
        return _amount(sum(process.memory_full_info().pss for process in processes) / MB)


# -- lines -----------------------------------------------------------------------------------------------------------


def _log(server: Server, seconds: float) -> Sample:
    """One program floods, standard output is /dev/null: until its last line has been taken from it."""
    megabytes = 200
    with contestants.running(server.command[0], {"flood": ["flood", str(megabytes)]}) as formation:
        started = formation.marks("flood")[0][1]
        return _amount(megabytes / (formation.wait_for("flood", "end", timeout=120)[1] - started))


def _checked_log(server: Server, seconds: float) -> Sample:
    """Three programs flood at once into a pipe; every line that arrives is looked at."""
    kind = server.command[0]
    megabytes = 2.0 if kind == HONCHO else 10.0
    wanted = int(megabytes * MB / 100)
    read, write = os.pipe()
    programs = {name: ["flood", str(megabytes)] for name in QUIET}
    began = time.monotonic()
    seen = dict.fromkeys(programs, -1)
    odd = 0
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, read)
        try:
            formation = stack.enter_context(contestants.running(kind, programs, write))
        finally:
            os.close(write)
        began = min(formation.marks(name)[0][1] for name in programs)
        deadline = time.monotonic() + 120
        partial = b""
        while any(last < wanted - 1 for last in seen.values()) and time.monotonic() < deadline:
            lines = (partial + os.read(read, 65536)).split(b"\n")
            partial = lines.pop()
            for line in lines:
                found = _LINE.search(line)
                name, number = (found[1].decode(), int(found[2])) if found else ("", 0)
                if name not in seen:
                    odd += b"xxx" in line
                    continue
                odd += number != seen[name] + 1
                seen[name] = number
        ended = time.monotonic()
        for line in _drain(read):
            odd += b"xxx" in line and not _LINE.search(line)
    return _amount(3 * megabytes / (ended - began), torn=odd)


def _drain(fd: int) -> list[bytes]:
    os.set_blocking(fd, False)
    with contextlib.suppress(BlockingIOError):
        return os.read(fd, 65536).split(b"\n")
    return []


def _blocked(formation: Formation) -> None:
    """Wait until the flooding program cannot write any more: nobody reads the supervisor's output."""
    pid, _ = formation.marks("flood")[0]
    before, deadline = -1, time.monotonic() + 5
    while time.monotonic() < deadline:
        written = psutil.Process(pid).io_counters().write_chars
        if written == before:
            return
        before = written
        time.sleep(0.3)


@contextlib.contextmanager
def _blocked_formation(server: Server) -> Iterator[Formation]:
    read, write = os.pipe()
    try:
        with contestants.running(server.command[0], {"flood": ["flood", "1000"], "two": ["quiet"]}, write) as formation:
            os.close(write)
            time.sleep(SETTLE)
            _blocked(formation)
            yield formation
    finally:
        os.close(read)


def _blocked_respawn(server: Server, seconds: float) -> Sample:
    with _blocked_formation(server) as formation:
        return _time(_kill(formation, "two", BLOCKED_LIMIT))


def _blocked_control(server: Server, seconds: float) -> Sample:
    with _blocked_formation(server) as formation:
        asked = time.monotonic()
        try:
            control.call(formation.control, "supervisor.getAllProcessInfo", timeout=BLOCKED_LIMIT)
        except (OSError, ProcmanError):
            return _time(BLOCKED_LIMIT)
        return _time(time.monotonic() - asked)


def _blocked_stop(server: Server, seconds: float) -> Sample:
    with _blocked_formation(server) as formation:
        return _time(_end(formation.process, BLOCKED_LIMIT))


# -- sites -----------------------------------------------------------------------------------------------------------


def _import_time(project: Path) -> float:
    """Seconds that the project's own import takes, in a process of its own; of three the middle one."""
    code = (
        "import time; began = time.perf_counter(); import django; django.setup(); "
        "from django.urls import get_resolver; get_resolver().url_patterns; print(time.perf_counter() - began)"
    )
    environ = os.environ | {"DJANGO_SETTINGS_MODULE": "benchsite.settings"}
    taken = [
        float(
            subprocess.run(
                [sys.executable, "-c", code], cwd=project, env=environ, check=True, capture_output=True
            ).stdout
        )
        for _ in range(3)
    ]
    return sorted(taken)[1]


def _first(server: Server, seconds: float) -> Sample:
    """From the command to the first 200, less what the project's import takes alone."""
    with tempfile.TemporaryDirectory(prefix="bench") as directory:
        project = Path(shutil.copytree(Path(__file__).parents[1] / "site", Path(directory) / "site"))
        taken = _import_time(project)
    began = time.monotonic()
    with running(server) as (port, process, project):
        wait_for_answer(port, process, project)
        return _time(time.monotonic() - began - taken)


def _reload(server: Server, seconds: float) -> Sample:
    """From the change of a file to the first answer of the new code, less what the project's import takes alone."""
    with running(server) as (port, process, project):
        taken = _import_time(project)
        wait_for_answer(port, process, project)
        time.sleep(SETTLE)  # whoever watches the files has begun to
        urls = project / "benchsite" / "urls.py"
        urls.write_text(urls.read_text().replace('"hello"', '"hello again"'))
        changed = time.monotonic()
        while time.monotonic() < changed + BLOCKED_LIMIT:
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer,
            ):
                if answer.read() == b"hello again":
                    return _time(time.monotonic() - changed - taken)
            time.sleep(0.002)
        return _time(BLOCKED_LIMIT)


def _slow_import(server: Server, seconds: float) -> Sample:
    """``kill -9`` of the only worker of a project that takes 2 s to import, to its successor's first answer."""
    os.environ["BENCH_IMPORT_SECONDS"] = "2"
    try:
        with running(server) as (port, process, project):
            wait_for_answer(port, process, project)
            if "procman" in server.command:
                (pid,) = worker_pids(project).values()
            else:
                (pid,) = [child.pid for child in psutil.Process(process.pid).children()]
            killed = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            wait_for_answer(port, process, project)
            return _time(time.monotonic() - killed)
    finally:
        del os.environ["BENCH_IMPORT_SECONDS"]


def _worker_memory(server: Server, seconds: float) -> Sample:
    """Private memory of each worker but the first, of four, after some requests."""
    with running(server) as (port, process, project):
        for _ in range(40):
            wait_for_answer(port, process, project)
        pids = [pid for name, pid in sorted(worker_pids(project).items()) if name != "worker.1"]
        return _amount(sum(psutil.Process(pid).memory_full_info().uss for pid in pids) / len(pids) / MB)


_ALL = (Server(OURS, (OURS,)), Server(SUPERVISORD, (SUPERVISORD,)), Server(HONCHO, (HONCHO,)))
_ENDS = "honcho: ends everything when one process ends"
_NO_SOCKET = "honcho: cannot be asked anything"
_UNKEPT = "honcho: takes all lines into memory, so that the time in which they are taken says nothing"
_SITE_OURS = Server("procman, the benchmark's site", (*_SITE, "--workers", "2"))


def _without_honcho(reason: str) -> tuple[Server, ...]:
    return (*_ALL[:2], Server(HONCHO, (HONCHO,), absent=reason))


SUPERVISOR_ROWS = {
    row.name: row
    for row in (
        Row("restart", "kill -9 of a quiet program to its successor's first line", _respawn, _without_honcho(_ENDS),
            "ms", most=200),
        Row("slow-import", "kill -9 of the only worker to its successor's first answer; the project imports in 2 s",
            _slow_import, (Server("procman", (*_SITE, "--workers", "1")),
                           Server("procman --no-preload", (*_SITE, "--workers", "1", "--no-preload")),
                           Server("gunicorn --preload, 1 worker",
                                  (*GUNICORN[:-2], "1", "--preload", "benchsite.wsgi"))),
            "ms", most=200),
        Row("worker-memory", "Private memory of each worker after the first, of 4", _worker_memory,
            (Server("procman", (*_SITE, "--workers", "4")),
             Server("procman --no-preload", (*_SITE, "--workers", "4", "--no-preload"))), "MB", most_share=0.4),
        Row("wakeups", "Wake-ups of an idle supervisor; each of 2 workers of a site shows every 10 s that it lives",
            _wakeups, (_SITE_OURS, *_ALL), "per second", most=0.25),
        Row("memory", "Memory (PSS) of an idle supervisor, three programs", _memory, (*_ALL, _SITE_OURS), "MB",
            most=30),
        Row("stop", "SIGTERM to the end, everything idle", _stop, (_SITE_OURS, *_ALL), "ms", most=300),
        Row("first", "Command to first 200, less the project's own import", _first,
            (_SITE_OURS, Server("gunicorn sync, 2 workers", GUNICORN)), "ms", most=500),
        Row("reload", "A file changes: to the new code's first answer, less the import (10 s: not by then)",
            _reload, (Server("procman --reload", (*_SITE, "--workers", "2", "--reload")),
                      Server("gunicorn --reload, 2 workers", (*GUNICORN[:-1], "--reload", "benchsite.wsgi"))),
            "ms", most=500),
        Row("log", "Merged log: 200 MB of 100-byte lines of one program, to /dev/null", _log, _without_honcho(_UNKEPT),
            "MB/s", least=150),
        Row("log-checked", "Merged log: three programs at once into a pipe, each line looked at", _checked_log, _ALL,
            "MB/s", count=("torn", "lines lost, torn or out of order")),
        Row("blocked-restart", "Nobody reads the log: kill -9 to the successor's first line (10 s: not by then)",
            _blocked_respawn, _without_honcho(_ENDS), "ms", most=200),
        Row("blocked-control", "Nobody reads the log: asking for the states of all (10 s: not by then)",
            _blocked_control, _without_honcho(_NO_SOCKET), "ms", most=200),
        Row("blocked-stop", "Nobody reads the log: SIGTERM to the end (10 s: not by then)", _blocked_stop, _ALL, "ms",
            most=2000),
    )
}  # fmt: skip
