"""The Autobahn test suite, by the script that users run: what every WebSocket client may expect of a server."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_no_case_of_the_groups_on_messages_and_closing_fails(tmp_path: Path) -> None:
    outcome = tmp_path / "outcome.json"
    done = subprocess.run(
        [sys.executable, "scripts/conformance.py", "--json", str(outcome)],
        cwd=ROOT, check=False, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    cases = json.loads(outcome.read_text())
    assert {name.split(".")[0] for name in cases} == {"1", "2", "3", "4", "5", "6", "7", "10"}
    assert len(cases) > 240
    for name, case in cases.items():
        assert case["behavior"] in ("OK", "NON-STRICT", "INFORMATIONAL"), name
        assert case["behaviorClose"] in ("OK", "INFORMATIONAL"), name
    assert sum(case["behavior"] == "OK" for case in cases.values()) > 220
