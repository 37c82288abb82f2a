"""Sites for the end-to-end tests: real processes, one per module that shares it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import Site, copy_project, running_site

ARTIFACTS = Path(__file__).parents[2] / "artifacts"


@pytest.fixture(scope="session")
def artifacts() -> Path:
    """Where screenshots and logs are kept."""
    ARTIFACTS.mkdir(exist_ok=True)
    return ARTIFACTS


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh copy of the test project with its database migrated."""
    directory = copy_project(tmp_path_factory.mktemp("e2e") / "project")
    subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], cwd=directory, check=True)
    return directory


@pytest.fixture(scope="module")
def site(project: Path) -> Iterator[Site]:
    """The test project served by two workers."""
    with running_site(project, "--workers", "2") as site:
        yield site
