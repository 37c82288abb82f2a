"""Starts a formation of programs under one of the supervisors, and looks at the processes that it is made of."""

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.rows import PEERS

OURS, SUPERVISORD, HONCHO = "procman", "supervisord", "honcho"
CHILD = str(Path(__file__).with_name("child.py"))
END_TIMEOUT = 12.0  # seconds
SETTLE = 1.5  # seconds after which a program counts as started with all of them (supervisor's startsecs is 1)


@dataclass
class Formation:
    """A supervisor that runs; *marks* is the file in which the programs say that they were started."""

    process: subprocess.Popen[bytes]
    marks_path: Path
    control: str

    def marks(self, name: str, event: str = "start") -> list[tuple[int, float]]:
        """Process id and time of each such mark so far."""
        if not self.marks_path.exists():
            return []
        found = [line.split() for line in self.marks_path.read_text().splitlines()]
        return [(int(words[2]), float(words[3])) for words in found if words[:2] == [name, event]]

    def wait_for(self, name: str, event: str = "start", count: int = 1, timeout: float = 60.0) -> tuple[int, float]:
        """The *count*-th such mark. Raises TimeoutError."""
        deadline = time.monotonic() + timeout
        while len(found := self.marks(name, event)) < count:
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise TimeoutError(f"no {event} of {name}")
            time.sleep(0.002)
        return found[count - 1]

    def own_processes(self) -> list[psutil.Process]:
        """The supervisor and what it runs for itself: all but the programs and what is below them."""
        programs = {pid for line in self.marks_path.read_text().splitlines() for pid in [int(line.split()[2])]}
        own, queue = [], [psutil.Process(self.process.pid)]
        while queue:
            process = queue.pop()
            if process.pid not in programs:
                own.append(process)
                queue += process.children()
        return [process for process in own if process.status() != psutil.STATUS_ZOMBIE]


@contextlib.contextmanager
def running(kind: str, programs: Mapping[str, Sequence[str]], stdout: int = subprocess.DEVNULL) -> Iterator[Formation]:
    """*programs* (name: mode and argument of ``child.py``) below a supervisor of *kind*, all of them started."""
    with tempfile.TemporaryDirectory(prefix="bench") as directory:
        place = Path(directory)
        marks = place / "marks"
        words = {name: [sys.executable, "-S", CHILD, str(marks), name, *mode] for name, mode in programs.items()}
        command = _command(kind, words, place)
        environ = os.environ | {
            "PYTHONPATH": os.pathsep.join((str(PEERS.parents[1] / "scripts"), str(PEERS.parents[1])))
        }
        process = subprocess.Popen(
            command, cwd=place, stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.STDOUT, env=environ,
            start_new_session=True,
        )  # fmt: skip
        formation = Formation(process, marks, str(place / "control"))
        try:
            for name in programs:
                formation.wait_for(name)
            yield formation
        finally:
            pids = [line.split()[2] for line in marks.read_text().splitlines()] if marks.exists() else []
            end(process, [int(pid) for pid in pids])


def end(process: subprocess.Popen[bytes], pids: Sequence[int] = ()) -> None:
    """End *process*, all that is below it, and *pids*, the programs: some supervisors leave processes behind."""
    below: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        below = psutil.Process(process.pid).children(recursive=True)
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_TIMEOUT)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # it leads a session of its own
    for each in below:
        with contextlib.suppress(psutil.Error):
            each.kill()
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def _command(kind: str, programs: Mapping[str, Sequence[str]], place: Path) -> list[str]:
    if kind == OURS:
        return [sys.executable, "-m", "benchmarks.supervisor.ours", str(place / "control"), json.dumps(programs)]
    if kind == HONCHO:
        lines = (f"{name}: exec {shlex.join(words)}\n" for name, words in programs.items())
        (place / "Procfile").write_text("".join(lines))
        return [str(PEERS / "honcho"), "-f", str(place / "Procfile"), "start"]
    sections = [f"[supervisord]\nnodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile={place}/pid\n"]
    sections.append(f"[unix_http_server]\nfile={place}/control\n")
    sections.append(
        "[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n"
    )
    for name, words in programs.items():
        sections.append(
            f"[program:{name}]\ncommand={shlex.join(words)}\nautorestart=true\nredirect_stderr=true\n"
            "stdout_logfile=/dev/stdout\nstdout_logfile_maxbytes=0\n"
        )
    (place / "supervisord.conf").write_text("\n".join(sections))
    return [str(PEERS / "supervisord"), "-c", str(place / "supervisord.conf")]
