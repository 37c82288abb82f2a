import os
import subprocess
import sys
from pathlib import Path

import pytest

from procman.supervision import usage
from procman.supervision.usage import Memory


def write(directory: Path, **files: str) -> Path:
    directory.mkdir()
    for name, text in files.items():
        (directory / name.replace("__", ".")).write_text(text)
    return directory


def test_memory_is_that_of_the_processes_that_are_there() -> None:
    with subprocess.Popen([sys.executable, "-c", "x = b'x' * 30_000_000; input()"], stdin=subprocess.PIPE) as child:
        found: dict[int, int] = {}
        while found.get(child.pid, 0) < 30_000_000:
            found = usage.memory_of([os.getpid(), child.pid, 2**22 + 1])
        assert set(found) == set(usage.cpu_of([os.getpid(), child.pid, 2**22 + 1])) == {os.getpid(), child.pid}
        assert usage.cpu_of([os.getpid()])[os.getpid()] > 0
        assert child.stdin is not None
        child.stdin.close()


def test_the_memory_of_a_container_is_found_in_both_versions_of_cgroups(tmp_path: Path) -> None:
    none = tmp_path / "none"
    second = write(tmp_path / "second", memory__max="1000\n", memory__current="10\n")
    first = write(tmp_path / "first", memory__limit_in_bytes="2000", memory__usage_in_bytes="20")
    open_end = write(tmp_path / "open", memory__max="max\n", memory__current="10\n")
    huge = write(tmp_path / "huge", memory__limit_in_bytes="9223372036854771712", memory__usage_in_bytes="20")
    assert usage.container_memory(second, first) == Memory(1000, 10)
    assert usage.container_memory(none, first) == Memory(2000, 20)
    assert usage.container_memory(open_end, huge) is usage.container_memory(none, none) is None


def test_kills_for_lack_of_memory_are_counted_in_the_container_or_on_the_machine(tmp_path: Path) -> None:
    container = write(tmp_path / "c", memory__events="low 0\noom 3\noom_kill 2\n")
    machine = write(tmp_path / "m", vmstat="nr_free 1\noom_kill 5\n") / "vmstat"
    assert usage.oom_kills(container, machine) == 2
    assert usage.oom_kills(tmp_path / "none", machine) == 5
    assert usage.oom_kills(tmp_path / "none", tmp_path / "none") is None


def test_limits_are_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "container_memory", lambda: Memory(512 * usage.MIB, 1))
    assert usage.describe_limits().startswith("limits: ")
    assert usage.describe_limits().endswith("memory 512 MiB in this container")
