"""The drivers of the programming model's benchmark really find and run consumers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "contestant", "work"),
    [
        ("ours", "flat", "match"), ("ours", "include", "match"), ("ours", "plain", "dispatch"),
        ("ours", "session", "dispatch"), ("views", "ours", "view"), ("views", "wsgi", "view"),
    ],
)  # fmt: skip
def test_every_contestant_spends_time_of_the_processor(module: str, contestant: str, work: str) -> None:
    environ = os.environ | {"PYTHONPATH": f"{SCRIPTS}{os.pathsep}{SCRIPTS.parent}"}
    command = [sys.executable, "-m", f"benchmarks.model.{module}", contestant, work, "0.2"]
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    assert 0.5 < json.loads(ended.stdout)["rate"] < 5000  # microseconds: it ran, and not something else
