"""The benchmarks' drivers really measure, and the picture shows what they found."""

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
SVG = "{http://www.w3.org/2000/svg}"


def python(*arguments: str) -> Any:
    """What a Python process prints that finds the benchmarks, as JSON."""
    environ = os.environ | {"PYTHONPATH": f"{SCRIPTS}{os.pathsep}{SCRIPTS.parent}"}
    ended = subprocess.run(
        [sys.executable, *arguments], env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("work", ["idle", "flight", "oneway"])
@pytest.mark.parametrize("contestant", ["raw", "interface", "sender", "memory"])
def test_every_contestant_does_every_work(contestant: str, work: str) -> None:
    module = "raw" if contestant == "raw" else "ours"
    sample = python("-m", f"benchmarks.layers.{module}", contestant, work, "0.4")
    assert sample["rate"] > 0
    assert work == "oneway" or 0 < sample["p50_ms"] <= sample["p99_ms"]


@pytest.mark.slow
@pytest.mark.parametrize("contestant", ["interface", "memory"])
def test_group_sends_cost_time_of_the_processor(contestant: str) -> None:
    sample = python("-m", "benchmarks.layers.ours", contestant, "group-10", "0.4")
    assert sample["rate"] > 0
    assert 0 < sample["p50_ms"] <= sample["p99_ms"]


def test_messages_have_the_sizes_that_the_titles_name() -> None:
    code = (
        "import json; from benchmarks.layers import common; from procman.layers.codec import encode\n"
        "ask = common.request('interface.0123abcd!1', 1.5)\n"
        "print(json.dumps([len(encode(m)) for m in (ask, common.reply(ask), common.GROUP_MESSAGE)]))"
    )
    request, reply, group = python("-c", code)
    assert abs(request - 800) <= 40
    assert abs(reply - 300) <= 15
    assert abs(group - 100) <= 10


def test_the_picture_has_a_bar_for_each_contestant_as_long_as_its_median() -> None:
    code = (
        "import json; from benchmarks.plot import draw\n"
        "rates = {'procman <x>': [1, 100, 2], 'peer': [1.0, 1.0], 'nobody': []}\n"
        "samples = {'row': {name: [{'rate': rate} for rate in found] for name, found in rates.items()}}\n"
        "print(json.dumps(draw([('row', 'A & B', 'us')], samples)))"
    )
    root = ElementTree.fromstring(python("-c", code))
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert texts == ["A & B (us)", "procman <x>", "2.0", "peer", "1.0"]
    whole, ours, peer = (float(bar.get("width", 0)) for bar in root.iter(f"{SVG}rect"))
    assert whole > ours
    assert ours == pytest.approx(2 * peer, abs=0.2)


def test_json_holds_null_for_what_a_work_does_not_measure() -> None:
    code = (
        "import json; from benchmarks.plot import without_nan\n"
        "print(json.dumps(without_nan({'r': {'s': [{'rate': 1.0, 'p50_ms': float('nan')}]}}), allow_nan=False))"
    )
    assert python("-c", code) == {"r": {"s": [{"rate": 1.0, "p50_ms": None}]}}
