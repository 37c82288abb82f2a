"""Marks that tests read: one line per event, appended in one write, so that every process may leave some."""

import json
import os
import time
from pathlib import Path
from typing import Any

MARKS = Path(__file__).parents[1] / "marks.jsonl"


def mark(event: str, **facts: Any) -> None:
    """Append one line with *event*, *facts*, this process's pid and the time."""
    line = json.dumps({"event": event, "pid": os.getpid(), "time": time.time(), **facts}) + "\n"
    fd = os.open(MARKS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, line.encode())
    finally:
        os.close(fd)
