"""A program to be supervised: ``child.py MARKS NAME MODE [MEGABYTES]``. Standard library only, quick to start.

Appends ``NAME EVENT PID TIME`` to the file MARKS when it starts (``start``) and when it has written all (``end``).
"""

import os
import signal
import sys
import time

BLOCK = 500  # lines at a time
LINE = 100  # bytes


def mark(path: str, name: str, event: str) -> None:
    """Say in the file *path* that *event* has come."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, f"{name} {event} {os.getpid()} {time.monotonic()}\n".encode())
    os.close(fd)


def write_all(data: bytes) -> None:
    """Write *data* to standard output, however long that takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def main(path: str, name: str, mode: str, megabytes: str = "0") -> None:
    """Do what *mode* says: write *megabytes* (``flood``) or nothing (``quiet``), then wait for a signal."""
    mark(path, name, "start")
    if mode == "flood":
        # NAME and a number on each line: whoever reads can tell what is missing.
        lines = int(float(megabytes) * 1_000_000 / LINE)
        for first in range(0, lines, BLOCK):
            numbers = range(first, min(lines, first + BLOCK))
            write_all(b"".join(_line(name, number) for number in numbers))
        mark(path, name, "end")
    while True:
        signal.pause()


def _line(name: str, number: int) -> bytes:
    return f"<{name} {number:010d} ".encode().ljust(LINE - 2, b"x") + b">\n"


if __name__ == "__main__":
    main(*sys.argv[1:])
