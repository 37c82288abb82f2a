"""Run the test suite on pairs of a Django and a Python, and print a table of how it went.

A pair is written ``DJANGO/PYTHON``, such as ``5.2/3.11`` or ``6/3.13``. Each has an environment of its own below
``.matrix``, which is made again when ``setup.cfg`` changed. Pythons are looked for in pyenv's versions, then on the
PATH. Only the standard library is used, so any Python 3.11 or newer may run this file.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
ENVIRONMENTS = ROOT / ".matrix"
# 5.2 is the LTS; "6" is the newest release of the 6 series, which needs Python 3.12.
PAIRS = ("5.2/3.11", "5.2/3.12", "5.2/3.13", "6/3.12", "6/3.13", "6/3.14")


@dataclass(frozen=True)
class Outcome:
    """How the suite went on one pair; *failed* counts errors too."""

    pair: str
    django: str
    passed: int
    failed: int
    skipped: int
    seconds: float
    is_good: bool


def find_python(version: str, code: str = "") -> str | None:
    """Path of an executable of Python *version* (such as ``3.13``), pyenv's newest first; None: there is none.

    *code* is what it must be able to run with status 0; by default it must be that version and have ``venv``.
    """
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    found = sorted(
        (path for path in root.glob(f"{version}.*") if re.fullmatch(r"[\d.]+", path.name)),
        key=lambda path: [int(part) for part in path.name.split(".")],
        reverse=True,
    )
    candidates = [str(path / "bin" / "python") for path in found]
    if on_path := shutil.which(f"python{version}"):
        candidates.append(on_path)
    code = code or f"import sys, venv; sys.exit(sys.version_info[:2] != {tuple(map(int, version.split('.')))})"
    for candidate in candidates:
        # A shim of pyenv is on the PATH even where the version behind it is not chosen; it exits with 127.
        if not subprocess.run([candidate, "-c", code], capture_output=True, check=False).returncode:
            return candidate
    return None


def requirement(django: str) -> str:
    """What pip is asked for: ``5.2`` means 5.2.x, ``6`` means the newest 6.x."""
    parts = [int(part) for part in django.split(".")]
    return f"django>={django},<{'.'.join(map(str, [*parts[:-1], parts[-1] + 1]))}"


def environment(pair: str, python: str) -> Path:
    """The Python of the pair's environment, which is made or made again where need be."""
    django, _, version = pair.partition("/")
    directory = ENVIRONMENTS / f"django{django}-python{version}"
    declared = b"".join((ROOT / name).read_bytes() for name in ("setup.cfg", "pyproject.toml"))
    want = hashlib.sha256(declared + f"{directory} {python}".encode()).hexdigest()
    stamp = directory / "installed"
    executable = directory / "bin" / "python"
    if not stamp.is_file() or stamp.read_text() != want:
        print(f"Installing {pair} into {directory.relative_to(ROOT)} ...", file=sys.stderr, flush=True)
        subprocess.run([python, "-m", "venv", "--clear", str(directory)], check=True)
        pip = [str(executable), "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
        subprocess.run([*pip, "--editable", f"{ROOT}[docs,test]", requirement(django)], check=True)
        stamp.write_text(want)
    return executable


def run(pair: str, python: str, arguments: list[str]) -> Outcome:
    """Run pytest with *arguments* on *pair* and read its counts from the report that it writes."""
    executable = environment(pair, python)
    report = executable.parents[1] / "report.xml"
    report.unlink(missing_ok=True)
    code = "import django; print(django.get_version())"
    django = subprocess.run([executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    print(f"\n== Django {django} on Python {pair.partition('/')[2]}", flush=True)
    begun = time.monotonic()
    # Programs beside the interpreter are found as in an active environment; scripts/valkey unpacks into .venv.
    places = [str(executable.parent), os.environ["PATH"], str(ROOT / ".venv" / "valkey" / "usr" / "bin")]
    environ = os.environ | {"PATH": os.pathsep.join(places)}
    command = [str(executable), "-m", "pytest", f"--junit-xml={report}", *arguments]
    status = subprocess.run(command, cwd=ROOT, env=environ, check=False).returncode
    seconds = time.monotonic() - begun
    counts = dict.fromkeys(("tests", "failures", "errors", "skipped"), 0)
    if report.is_file():
        for suite in ElementTree.parse(report).getroot().iter("testsuite"):
            counts = {name: counts[name] + int(suite.get(name, 0)) for name in counts}
    failed = counts["failures"] + counts["errors"]
    passed = counts["tests"] - failed - counts["skipped"]
    return Outcome(pair, django, passed, failed, counts["skipped"], seconds, status == 0)


def table(outcomes: list[Outcome], missing: list[str]) -> str:
    """The last thing printed: one line per pair."""
    rows = [("pair", "Django", "passed", "failed", "skipped", "time", "")]
    for o in outcomes:
        verdict = "ok" if o.is_good else "FAILED"
        rows.append((o.pair, o.django, str(o.passed), str(o.failed), str(o.skipped), f"{o.seconds:.0f} s", verdict))
    rows += [(pair, "-", "-", "-", "-", "-", f"NOT RUN: no Python {pair.partition('/')[2]}") for pair in missing]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def main(arguments: list[str]) -> int:
    """The exit status: 0 when every pair that was asked for ran and passed."""
    at = arguments.index("--") if "--" in arguments else len(arguments)
    own, for_pytest = arguments[:at], arguments[at + 1 :]
    parser = argparse.ArgumentParser(
        prog="scripts/test-matrix",
        usage="%(prog)s [PAIR...] [-- PYTEST ARGUMENTS]",
        description="Run the test suite on pairs of a Django and a Python.",
        epilog=f"Without a PAIR: {' '.join(PAIRS)}, as far as their Python is found in pyenv or on the PATH; those"
        " that are not found are named, and only those given as a PAIR count as failed. Environments are kept in"
        " .matrix.",
    )
    parser.add_argument("pairs", metavar="PAIR", nargs="*", help="DJANGO/PYTHON, such as 5.2/3.11 or 6/3.13")
    given: list[str] = parser.parse_args(own).pairs
    for pair in given:
        if not re.fullmatch(r"\d+(\.\d+)?/3\.\d+", pair):
            parser.error(f"{pair!r} is not a pair; write DJANGO/PYTHON, such as 6/3.13")
    outcomes, missing = [], []
    for pair in given or PAIRS:
        python = find_python(pair.partition("/")[2])
        if python is None:
            missing.append(pair)
            print(f"scripts/test-matrix: no Python {pair.partition('/')[2]}, so {pair} is not run", file=sys.stderr)
        else:
            outcomes.append(run(pair, python, for_pytest))
    print("\n" + table(outcomes, missing))
    return 0 if outcomes and all(outcome.is_good for outcome in outcomes) and not (given and missing) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
