"""The last resort: a tiny process that kills every process group once the supervisor is gone, however it died.

Started by its path with ``python -I -S``; imports the standard library's lightest modules only and nothing of procman,
so that it costs a few megabytes. It reads ``+PGID`` and ``-PGID`` lines from its standard input, a pipe that the
supervisor alone holds; at the end of the pipe it sends SIGKILL to each group that was added and not removed. A group is
removed before its leader is reaped, so its number cannot belong to somebody else. What has left its group (setsid) is
found on Linux by its environment: every process of one run has inherited the variable that an ``=VARIABLE`` line tells.
"""

import os
import signal
import sys


def main() -> None:
    """Watch descriptor 0 until its end, then kill."""
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    groups: set[int] = set()
    rest = mark = b""
    while data := os.read(0, 4096):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            if line[:1] == b"=":
                mark = line[1:]
            else:
                (groups.add if line[:1] == b"+" else groups.discard)(int(line[1:]))
    for group in groups:
        try:
            os.killpg(group, signal.SIGKILL)
        except OSError:
            pass
    # Again if it found some: they may have started others meanwhile.
    for _ in range(3):
        if not mark or not kill_marked(mark):
            break


def kill_marked(mark: bytes) -> bool:
    """Kill every process in whose environment a variable begins with *mark*; whether there were any."""
    found = False
    try:
        names = os.listdir("/proc")  # noqa: PTH208  pathlib is too heavy here
    except OSError:
        return False
    for name in names:
        if name.isdigit() and int(name) != os.getpid():
            try:
                with open(f"/proc/{name}/environ", "rb") as file:  # noqa: PTH123
                    if b"\0" + mark in b"\0" + file.read():
                        os.kill(int(name), signal.SIGKILL)
                        found = True
            except OSError:
                pass
    return found


if __name__ == "__main__":
    main()
    sys.exit(0)
