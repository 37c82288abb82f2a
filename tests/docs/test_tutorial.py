"""The tutorial, followed to the letter: its listings are written, its commands run, and two browsers chat."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.chromium import running_chromium
from tests.support.processes import Site, free_port

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"
BIN = Path(sys.executable).parent
AT_THE_END = " (at the end)"
# What a reader does in a terminal of its own, or once for all projects.
INSTALL, SERVE = "pip install procman", "channels-run"


def steps(text: str) -> list[tuple[str, str, str]]:
    """The page's listings and commands in order: ``("file", name, content)`` or ``("run", command, output)``."""
    found = []
    for language, body in re.findall(r"^```(\S+(?: \S+)?)\n(.*?)^```$", text, re.S | re.M):
        if language.startswith("{code-block}"):
            caption, _, content = body.partition("\n\n")
            assert caption.startswith(":caption: "), f"a listing without a file's name: {caption}"
            found.append(("file", caption.removeprefix(":caption: "), content))
        else:
            assert language == "console", f"a block of {language!r} is not tested"
            for command, output in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", body, re.M):
                found.append(("run", command, output))
    return found


def matches(shown: str, printed: str) -> bool:
    """Whether *printed* is what the page shows; ``...`` in it stands for anything."""
    pattern = ".*?".join(re.escape(part) for part in shown.strip().split("..."))
    return re.fullmatch(pattern, printed.strip(), re.S) is not None


class Reader:
    """Somebody who follows the page in *directory*."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        dropped = ("PORT", "DJANGO_SETTINGS_MODULE", "PROCMAN_LAYER", "WEB_CONCURRENCY")
        self.environ = {name: value for name, value in os.environ.items() if name not in dropped}
        self.environ["PATH"] = f"{BIN}{os.pathsep}{self.environ['PATH']}"
        self.done: list[str] = []

    def write(self, name: str, content: str) -> None:
        path = self.directory / name.removesuffix(AT_THE_END)
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(AT_THE_END):
            content = f"{path.read_text()}\n{content}"
        path.write_text(content)
        self.done.append(name)

    def run(self, command: str, shown: str) -> None:
        ended = subprocess.run(
            ["sh", "-c", command], cwd=self.directory, env=self.environ, capture_output=True, text=True, timeout=100
        )
        printed = ended.stdout + ended.stderr
        assert ended.returncode == 0, f"{command}:\n{printed}"
        assert not shown or matches(shown, printed), f"{command} printed:\n{printed}\nbut the page shows:\n{shown}"
        self.done.append(command)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """Who has followed the page up to ``channels-run``."""
    reader = Reader(tmp_path_factory.mktemp("tutorial"))
    for kind, name, content in steps(PAGE.read_text()):
        if name == SERVE:
            return reader
        if kind == "file":
            reader.write(name, content)
        elif name != INSTALL:
            reader.run(name, content)
    raise AssertionError("the page never says `channels-run`")


@pytest.fixture(scope="module")
def site(reader: Reader) -> Iterator[Site]:
    """The chat, served by the command on the page."""
    site = Site(reader.directory, environ={"PATH": reader.environ["PATH"], "PORT": str(free_port())})
    site.command = shlex.split(SERVE)
    try:
        yield site.start()
    finally:
        assert site.stop() == 0, site.log


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_chromium() as browser:
        yield browser


def enter(browser: Browser, url: str, name: str, password: str) -> Page:
    """A page of *name*'s in the lobby, reached as the page says: by logging in and naming the room."""
    page = browser.new_context().new_page()
    page.set_default_timeout(20_000)
    page.goto(url)
    page.fill("#id_username", name)
    page.fill("#id_password", password)
    page.click("button")
    page.fill("input[name=room]", "lobby")
    page.click("button")
    page.wait_for_url("**/chat/lobby/")
    return page


def passwords() -> dict[str, str]:
    """User -> password, as the page's commands make them."""
    found = re.findall(r"DJANGO_SUPERUSER_PASSWORD=(\S+) .* --username (\S+)", PAGE.read_text())
    return {name: password for password, name in found}


@pytest.mark.slow
def test_two_browsers_chat_and_see_the_history_and_the_shell(reader: Reader, site: Site, browser: Browser) -> None:
    people = passwords()
    ada = enter(browser, site.url, "ada", people["ada"])
    grace = enter(browser, site.url, "grace", people["grace"])
    for page, text in ((ada, "Anybody <b>here</b>?"), (grace, "I am.")):
        page.fill("#text", text)
        page.press("#text", "Enter")
        expect(ada.locator("#messages li").last).to_contain_text(text)
        expect(grace.locator("#messages li").last).to_contain_text(text)
    ada.reload()
    expect(ada.locator("#messages li")).to_have_text(["ada: Anybody <b>here</b>?", "grace: I am."])
    shell = next(name for kind, name, _ in steps(PAGE.read_text()) if "manage.py shell" in name)
    reader.run(shell, "")
    for page in (ada, grace):
        expect(page.locator("#messages li").last).to_have_text("shell: hello")
        page.context.close()


@pytest.mark.slow
def test_the_chats_own_tests_pass_as_the_page_shows(reader: Reader) -> None:
    after = steps(PAGE.read_text())
    after = after[[name for _, name, _ in after].index(SERVE) + 1 :]
    for kind, name, content in after:
        if kind == "file":
            reader.write(name, content)
        elif "manage.py shell" not in name:
            reader.run(name, content)
    assert "python manage.py test" in reader.done


def test_the_comparison_of_output_sees_a_difference() -> None:
    assert matches("Ran 3 tests in ...\n\nOK", "Ran 3 tests in 0.1s\n\nOK\n")
    assert not matches("Ran 3 tests in ...\n\nOK", "Ran 3 tests in 0.1s\n\nFAILED\n")
