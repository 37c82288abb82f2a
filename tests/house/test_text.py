"""Rules about the text itself: docstrings, sizes, version and changelog, nothing of this machine."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

import procman

ROOT = Path(__file__).parents[2]
MODULES = sorted(path for path in (ROOT / "procman").rglob("*.py") if "app_template" not in path.parts)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_and_public_definitions_have_docstrings(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), f"{path} has no docstring"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            if any(isinstance(each, ast.Name) and each.id == "overload" for each in node.decorator_list):
                continue  # the definition that follows them has the docstring
            assert ast.get_docstring(node), f"{path}:{node.lineno} {node.name} has no docstring"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_function_is_longer_than_sixty_lines(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
            length = (body[-1].end_lineno or 0) - body[0].lineno + 1
            assert length <= 60, f"{path}:{node.lineno} {node.name} has {length} lines"


def test_the_changelog_names_the_version() -> None:
    assert f"## {procman.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_tracked_text_holds_no_path_of_a_developers_machine() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False).stdout
    private = re.compile(r"/(?:home/\w+|work|root)/")
    for name in filter(None, listed.decode().split("\0")):
        path = ROOT / name
        if path.is_file() and path.suffix not in (".png", ".ico") and path != Path(__file__):
            found = private.search(path.read_text(errors="replace"))
            assert not found, f"{name} holds {found and found[0]!r}"
