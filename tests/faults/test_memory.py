"""What goes through the hub leaves nothing behind in it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.mark.slow
def test_the_hubs_memory_is_flat_while_100_000_messages_go_through_it() -> None:
    environ = os.environ | {"PYTHONPATH": f"{SCRIPTS}{os.pathsep}{SCRIPTS.parent}"}
    command = [sys.executable, "-m", "benchmarks.layers.memory", "100000", "--step", "20000"]
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=100, check=False)
    assert ended.returncode == 0, ended.stderr
    samples = [sample["rss_kib"] for sample in json.loads(ended.stdout)]
    # The first 20,000 fill buffers and pools. 80,000 later, 2 MiB would be 26 bytes for each message.
    assert len(samples) == 5 and samples[-1] < samples[0] + 2048, samples
