"""A program of test children: ``python children.py MODE [ARGUMENT...]``, each mode one way to behave or misbehave.

Standard library only and quick to start. A mode that becomes ready says so to its supervisor and prints ``ready PID``.
"""

import contextlib
import os
import signal
import subprocess
import sys


def ready() -> None:
    print("ready", os.getpid(), flush=True)
    with contextlib.suppress(KeyError, OSError):  # a grandchild has the variable, not the descriptor
        os.write(int(os.environ["PROCMAN_READY_FD"]), b"1")


def wait() -> None:
    while True:
        signal.pause()


def quiet() -> None:
    """Does nothing until a signal ends it."""
    ready()
    wait()


def stubborn() -> None:
    """Ignores SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ready()
    wait()


def polite() -> None:
    """Ends with status 0 on SIGTERM, and says so."""
    signal.signal(signal.SIGTERM, lambda *_: (print("asked to stop", flush=True), os._exit(0)))  # type: ignore[func-returns-value]
    ready()
    wait()


def lifetime() -> None:
    """Ignores SIGTERM and ends when its lifetime pipe does, as the hub."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ready()
    os.read(int(os.environ["PROCMAN_LIFETIME_FD"]), 1)
    print("lifetime is over", flush=True)


def die(status: str = "3") -> None:
    """Ends before it is ready."""
    print("dying", os.getpid(), flush=True)
    os._exit(int(status))


def ready_and_die(status: str = "3") -> None:
    """Ends as soon as it is ready."""
    ready()
    os._exit(int(status))


def holder(*words: str) -> None:
    """Has a grandchild that holds the pipe; with ``setsid`` the grandchild leaves the process group."""
    child = subprocess.Popen([sys.executable, __file__, "quiet"], start_new_session="setsid" in words, close_fds=True)
    print("grandchild", child.pid, flush=True)
    ready()
    wait()


def flood(megabytes: str) -> None:
    """Writes that many megabytes in numbered lines of 100 bytes, then is quiet."""
    ready()
    for block in range(int(megabytes) * 10):
        first = block * 1000
        os.write(1, b"".join(b"%099d\n" % number for number in range(first, first + 1000)))
    print("flooded", flush=True)
    wait()


def forever() -> None:
    """Writes lines without end."""
    ready()
    block = b"x" * 99 + b"\n"
    while True:
        os.write(1, block * 100)


def partial() -> None:
    """Writes a prompt without a line end."""
    ready()
    os.write(1, b"prompt> ")
    wait()


def binary() -> None:
    """Writes every byte but the line end."""
    os.write(1, b"<" + bytes(byte for byte in range(256) if byte != 10) + b">\n")
    ready()
    wait()


def environment() -> None:
    """Prints its environment."""
    for name, value in sorted(os.environ.items()):
        print(f"{name}={value}", flush=True)
    ready()
    wait()


def slow_ready(seconds: str) -> None:
    """Is ready after a while."""
    print("starting", os.getpid(), flush=True)
    signal.sigtimedwait((), float(seconds))
    ready()
    wait()


def never_ready() -> None:
    """Starts and never is ready."""
    print("starting", os.getpid(), flush=True)
    wait()


def beating() -> None:
    """Shows that it lives, ten times a second."""
    ready()
    status = int(os.environ["PROCMAN_READY_FD"])
    signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
    signal.signal(signal.SIGALRM, lambda *_: os.write(status, b"b"))
    wait()


def orphans(count: str) -> None:
    """Makes that many processes whose parent dies before them."""
    for _ in range(int(count)):
        if os.fork() == 0:
            if os.fork() == 0:
                signal.sigtimedwait((), 0.2)
            os._exit(0)
        os.wait()
    print("orphans made", flush=True)
    ready()
    wait()


def counts_interrupts() -> None:
    """Ignores SIGTERM and tells of each SIGINT."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, lambda *_: print("interrupted", flush=True))
    ready()
    wait()


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
