from pathlib import Path

import pytest

from procman.errors import ConfigurationError
from procman.supervision.logfiles import LogFiles


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_file_per_process_is_put_aside_when_it_has_grown(tmp_path: Path) -> None:
    failures: list[str] = []
    files = LogFiles(str(tmp_path / "log"), 30, 2, failures.append)
    for number in range(8):
        files.write("worker.1", b"%02d 456789\n" % number)  # 10 bytes
    files.write("system", b"one\n")
    files.close()
    assert names(tmp_path / "log") == ["system.log", "worker.1.log", "worker.1.log.1", "worker.1.log.2"]
    content = [(tmp_path / "log" / name).read_bytes() for name in ("worker.1.log.2", "worker.1.log.1", "worker.1.log")]
    assert b"".join(content) == b"".join(b"%02d 456789\n" % number for number in range(8))
    assert [len(each) for each in content] == [30, 30, 20]
    # The next run goes on with the same file.
    files = LogFiles(str(tmp_path / "log"), 30, 0, failures.append)
    files.write("worker.1", b"x" * 9 + b"\n")
    files.write("worker.1", b"y" * 9 + b"\n")
    files.close()
    assert (tmp_path / "log" / "worker.1.log").read_bytes() == b"y" * 9 + b"\n"
    assert failures == []


def test_a_file_that_cannot_be_written_is_told_once(tmp_path: Path) -> None:
    failures: list[str] = []
    files = LogFiles(str(tmp_path), 10_000, 1, failures.append)
    (tmp_path / "worker.1.log").symlink_to("/dev/full")  # links are not followed
    (tmp_path / "worker.2.log").mkdir()
    for _ in range(3):
        files.write("worker.1", b"lost\n")
        files.write("worker.2", b"lost\n")
    assert len(failures) == 2 and "cannot write" in failures[0] and "lines are lost" in failures[0]
    (tmp_path / "worker.1.log").unlink()
    files.write("worker.1", b"kept\n")
    assert (tmp_path / "worker.1.log").read_bytes() == b"kept\n"


def test_a_directory_that_cannot_be_had(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="cannot be made: "):
        LogFiles(str(tmp_path / "file"), 1, 1, lambda text: None)
