"""The last resort: a tiny process that kills every process group once the supervisor is gone, however it died.

Started by its path with ``python -I -S``; imports the standard library's lightest modules only and nothing of procman,
so that it costs a few megabytes. It reads ``+PGID`` and ``-PGID`` lines from its standard input, a pipe that the
supervisor alone holds; at the end of the pipe it sends SIGKILL to each group that was added and not removed. A group is
removed before its leader is reaped, so its number cannot belong to somebody else.
"""

import os
import signal
import sys


def main() -> None:
    """Watch descriptor 0 until its end, then kill."""
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    groups: set[int] = set()
    rest = b""
    while data := os.read(0, 4096):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            (groups.add if line[:1] == b"+" else groups.discard)(int(line[1:]))
    for group in groups:
        try:
            os.killpg(group, signal.SIGKILL)
        except OSError:
            pass


if __name__ == "__main__":
    main()
    sys.exit(0)
