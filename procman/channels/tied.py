"""``python -I -S tied.py PARENT PROGRAM ARGUMENT...``: becomes PROGRAM, which SIGTERM reaches when PARENT has died.

Started by its path; imports nothing of procman. ``manage.py runserver`` starts the process that runs the project's code
through it, so that a killed parent leaves none behind even where that code does not import. Linux only; elsewhere it
is the program and nothing else.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Replace this process by the program of *arguments*."""
    parent, *program = arguments
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != int(parent):  # it died before the call
            sys.exit(1)
    os.execvp(program[0], program)


if __name__ == "__main__":
    main(sys.argv[1:])
