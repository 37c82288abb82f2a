"""No test sleeps to synchronise: tests wait for events with a deadline, or poll in one place."""

import ast
from pathlib import Path

TESTS = Path(__file__).parents[1]
ALLOWED = {TESTS / "support" / "waiting.py"}


def sleeps(source: str) -> list[int]:
    """Line numbers of calls of a function named ``sleep``, however it was imported."""
    aliases = {"sleep"}
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            aliases |= {alias.asname for alias in node.names if alias.name == "sleep" and alias.asname}
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and (
            (isinstance(node.func, ast.Attribute) and node.func.attr == "sleep")
            or (isinstance(node.func, ast.Name) and node.func.id in aliases)
        )
    ]


def test_no_test_sleeps() -> None:
    found = {
        f"{path.relative_to(TESTS)}:{line}"
        for path in TESTS.rglob("*.py")
        if path not in ALLOWED
        for line in sleeps(path.read_text())
    }
    assert not found, "wait for an event with a deadline instead of sleeping"


def test_the_rule_sees_every_spelling_of_sleep() -> None:
    source = "import time, asyncio\nfrom time import sleep as nap\ntime.sleep(1)\nasyncio.sleep(1)\nnap(1)\n"
    assert sleeps(source) == [3, 4, 5]
