import os
import signal
import sys
from pathlib import Path

import pytest

from procman.supervision.spawn import spawn


def run(code: str, **options: object) -> str:
    """What a spawned Python prints."""
    read, write = os.pipe()
    with os.fdopen(read, "rb") as output:
        try:
            process = spawn([sys.executable, "-S", "-c", code], dict(os.environ), stdout=write, **options)  # type: ignore[arg-type]
        finally:
            os.close(write)
        text = output.read().decode()
    process.wait(10)
    return text.strip()


def test_a_child_leads_a_session_of_its_own() -> None:
    assert run("import os; print(os.getsid(0) == os.getpgid(0) == os.getpid())") == "True"


def test_a_child_starts_with_default_handlers_and_no_signal_blocked() -> None:
    code = "import signal; print(signal.pthread_sigmask(signal.SIG_BLOCK, ()), signal.getsignal(signal.SIGTERM).value)"
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        assert run(code) == "set() 0"
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGTERM, before)


def test_both_outputs_go_to_one_pipe_and_stdin_is_empty() -> None:
    code = "import sys; print('out', flush=True); print('err', file=sys.stderr, flush=True); print([sys.stdin.read()])"
    assert run(code).split() == ["out", "err", "['']"]


@pytest.mark.skipif(sys.platform != "linux", reason="PDEATHSIG is Linux's")
def test_a_child_dies_with_its_parent_unless_told_otherwise() -> None:
    code = "import ctypes; n = ctypes.c_int(); ctypes.CDLL(None).prctl(2, ctypes.byref(n)); print(n.value)"
    assert run(code) == str(int(signal.SIGKILL))
    assert run(code, dies_with_parent=False) == "0"


def test_the_callers_signal_mask_is_put_back() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    run("pass")
    with pytest.raises(FileNotFoundError):
        spawn(["/no/such/program"], {})
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_only_the_descriptors_that_are_passed_reach_the_child(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        fd = file.fileno()
        os.set_inheritable(fd, True)
        code = f"import os\ntry: os.fstat({fd}); print('open')\nexcept OSError: print('closed')"
        assert run(code) == "closed"
        assert run(code, pass_fds=(fd,)) == "open"
