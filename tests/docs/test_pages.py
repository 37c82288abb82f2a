"""The pages themselves: they build without a warning, their listings run, and the reference leaves nothing out."""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from procman import settings
from procman.cli.options import flag_name

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)
# What a listing is run in: a project with the apps that the guides use.
SET_UP = """
import django
from django.conf import settings
settings.configure(
    SECRET_KEY="documentation",
    INSTALLED_APPS=[
        "procman.channels", "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions",
    ],
)
django.setup()
"""


def python_blocks(page: Path) -> list[str]:
    """The Python listings of *page*. Those with a file's name are the tutorial's, which has a test of its own."""
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.S | re.M)


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES if python_blocks(page)], ids=lambda page: str(page.relative_to(DOCS))
)
def test_every_listing_of_a_guide_runs_on_its_own(page: Path) -> None:
    for block in python_blocks(page):
        command = [sys.executable, "-W", "error", "-c", SET_UP + block]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert ended.returncode == 0, f"{page.name}:\n{block}\n{ended.stderr}"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documentation, built as scripts/docs builds it."""
    if os.environ.get("PROCMAN_TEST_ALL") is None:
        pytest.importorskip("sphinx")
    target = tmp_path_factory.mktemp("docs")
    command = [sys.executable, "-m", "sphinx", "-q", "-b", "html", "-W", "--keep-going", "-n", str(DOCS), str(target)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return target


def text_of(page: Path) -> str:
    """What a page shows, without its marks."""
    import html

    return html.unescape(re.sub(r"<[^>]+>", "", page.read_text()))


@pytest.mark.slow
def test_every_command_is_shown_with_its_help(built: Path) -> None:
    page = text_of(built / "reference" / "commands.html")
    listed = subprocess.run([sys.executable, "-m", "procman", "--help"], capture_output=True, text=True, timeout=60)
    names = re.findall(r"^  ([a-z]+)  ", listed.stdout.partition("Commands:")[2], re.M)
    assert len(names) >= 7
    for name in names:
        assert f"Usage: channels-run {name}" in page


@pytest.mark.slow
def test_every_setting_of_the_command_line_is_in_the_limits_with_its_help(built: Path) -> None:
    page = re.sub(r"\s+", " ", text_of(built / "reference" / "limits.html"))
    fields = [
        field
        for each in vars(settings).values()
        if isinstance(each, type) and dataclasses.is_dataclass(each) and each is not settings.ProjectConfiguration
        for field in dataclasses.fields(each)
    ]
    assert len(fields) > 20
    for field in fields:
        assert f"{flag_name(field.name)} " in page.replace(",", " ")
        assert re.sub(r"\s+", " ", field.metadata["help"]) in page


@pytest.mark.slow
def test_every_public_module_is_in_the_reference(built: Path) -> None:
    page = (built / "reference" / "api.html").read_text()
    for name in ("routing", "sessions", "auth", "exceptions", "generic.websockets", "test.websocket", "worker"):
        assert f'id="module-procman.channels.{name}"' in page
    for name in (
        "channel.Group.send",
        "auth.channel_session_user",
        "generic.base.BaseConsumer",
        "signals.worker_ready",
    ):
        assert f"procman.channels.{name}" in page


def test_every_django_setting_that_is_read_is_in_the_reference() -> None:
    page = (DOCS / "reference" / "settings.md").read_text()
    read = set()
    for path in (ROOT / "procman" / "channels").rglob("*.py"):
        read |= set(re.findall(r'getattr\(\w*settings, "((?:CHANNEL)[A-Z_]+)"', path.read_text()))
    assert {"CHANNEL_LAYERS", "CHANNELS_WS_PROTOCOLS"} <= read
    for name in read:
        assert f"`{name}`" in page


def test_every_page_can_be_reached_from_the_front() -> None:
    front = (DOCS / "index.md").read_text()
    for page in (*PAGES, *DOCS.rglob("*.rst")):
        name = page.relative_to(DOCS).with_suffix("").as_posix()
        assert name == "index" or "_build" in name or re.search(rf"^{name}$", front, re.M), name


def test_the_readme_leads_to_pages_that_are_there() -> None:
    links = re.findall(r"\]\((docs/[^)#]+)", (ROOT / "README.md").read_text())
    assert links
    for link in links:
        assert (ROOT / link).exists(), link
