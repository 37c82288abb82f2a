"""The three classic examples of Channels 1.x in real browsers: two people see each other's changes."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.chromium import running_chromium
from tests.support.processes import Site, running_site

pytestmark = pytest.mark.slow
EXAMPLES = Path(__file__).parent / "examples"
USERS = """
from django.contrib.auth.models import User
User.objects.create_user("ann", password="secret")
User.objects.create_user("bob", password="secret")
User.objects.create_superuser("eve", password="secret")
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_chromium() as browser:
        yield browser


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens pages, each of another person; errors of their scripts fail the test."""
    pages: list[Page] = []
    errors: list[str] = []

    def open_page(url: str, width: int = 900) -> Page:
        page = browser.new_context(viewport={"width": width, "height": 700}).new_page()
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url)
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.context.close()
    assert not errors


def manage(directory: Path, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments], cwd=directory, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def example(name: str, directory: Path, code: str) -> Iterator[Site]:
    """The example *name*, served by two workers; *code* fills its database."""
    shutil.copytree(EXAMPLES / name, directory, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(EXAMPLES / "shared", directory / "shared", ignore=shutil.ignore_patterns("__pycache__"))
    manage(directory, "check")
    manage(directory, "migrate", "--run-syncdb", "-v0")
    manage(directory, "shell", "-v0", "-c", code)
    with running_site(directory, "--workers", "2") as site:
        yield site
        assert "Traceback" not in site.log


def log_in(page: Page, name: str) -> None:
    page.fill("#id_username", name)
    page.fill("#id_password", "secret")
    page.press("#id_password", "Enter")


def kill_workers(site: Site, *pages: Page) -> None:
    """Kill them all; from here on *pages* count the connections that they open."""
    for page in pages:
        page.evaluate("() => { window.opened = 0; bridge.socket.addEventListener('open', () => opened++); }")
    for name in ("worker.1", "worker.2"):
        site.kill(name)


def assert_still_connected(*pages: Page) -> None:
    assert [page.evaluate("[opened, bridge.socket.readyState]") for page in pages] == [[0, 1]] * len(pages)


# -- liveblog -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def liveblog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    code = f"{USERS}\nfrom liveblog.models import *; Liveblog.objects.create(title='The trip', slug='trip')"
    with example("liveblog", tmp_path_factory.mktemp("liveblog") / "site", code) as site:
        yield site


def test_a_post_saved_in_the_admin_appears_on_two_open_pages(
    liveblog: Site, open_page: Callable[..., Page], artifacts: Path
) -> None:
    readers = [open_page(f"{liveblog.url}/liveblog/trip/"), open_page(f"{liveblog.url}/liveblog/trip/", width=390)]
    for page in readers:
        expect(page.locator("#state")).to_have_text("live")
    writer = open_page(f"{liveblog.url}/admin/liveblog/post/add/")
    log_in(writer, "eve")
    writer.select_option("#id_liveblog", label="The trip")
    writer.fill("#id_body", "We have <arrived>.")
    writer.click("[name=_continue]")
    for page in readers:
        expect(page.locator(".card")).to_have_text(["We have <arrived>."])
    kill_workers(liveblog, *readers)
    writer.fill("#id_body", "We have arrived, at last.")
    writer.click("[name=_save]")
    for number, page in enumerate(readers):
        expect(page.locator(".card")).to_have_text(["We have arrived, at last."])
        expect(page.locator("#state")).to_have_text("live")
        page.screenshot(path=artifacts / f"example-liveblog-{number}.png")
    assert_still_connected(*readers)


def test_a_socket_of_a_blog_that_there_is_not_is_told_and_closed(
    liveblog: Site, open_page: Callable[..., Page]
) -> None:
    page = open_page(f"{liveblog.url}/")
    assert page.evaluate(
        """() => new Promise((resolve) => {
            const heard = [];
            const bridge = new channels.WebSocketBridge();
            bridge.connect("/liveblog/nowhere/stream/");
            bridge.listen((message) => heard.push(message.error));
            bridge.socket.addEventListener("close", ({ code }) => resolve([...heard, code, bridge.socket.readyState]));
        })"""
    ) == ["bad_slug", 1000, 3]


# -- multichat ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def multichat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    code = (
        f"{USERS}\nfrom multichat.models import Room; Room.objects.create(title='Lobby'); "
        "Room.objects.create(title='Office', staff_only=True)"
    )
    with example("multichat", tmp_path_factory.mktemp("multichat") / "site", code) as site:
        yield site


def enter(open_page: Callable[..., Page], site: Site, name: str, width: int = 900) -> Page:
    page = open_page(f"{site.url}/", width)
    log_in(page, name)
    expect(page.locator(".room")).to_have_count(2)
    return page


def test_two_people_talk_in_a_room_while_workers_are_killed(
    multichat: Site, open_page: Callable[..., Page], artifacts: Path
) -> None:
    ann = enter(open_page, multichat, "ann")
    ann.click("text=Lobby")
    expect(ann.locator(".messages .quiet")).to_have_text(["ann came in"])
    bob = enter(open_page, multichat, "bob", width=390)
    bob.click("text=Lobby")
    expect(ann.locator(".messages .quiet")).to_have_text(["ann came in", "bob came in"])
    ann.fill("section input", "Hello <b>!")
    ann.press("section input", "Enter")
    for page in (ann, bob):
        expect(page.locator(".message")).to_have_text(["ann: Hello <b>!"])
    kill_workers(multichat, ann, bob)
    bob.fill("section input", "Still here.")
    bob.press("section input", "Enter")
    for number, page in enumerate((ann, bob)):
        expect(page.locator(".message")).to_have_text(["ann: Hello <b>!", "bob: Still here."])
        page.screenshot(path=artifacts / f"example-multichat-{number}.png")
    assert_still_connected(ann, bob)
    bob.click(".room >> text=Lobby")
    expect(bob.locator("section")).to_have_count(0)
    expect(ann.locator(".messages .quiet").last).to_have_text("bob left")
    bob.click(".room >> text=Lobby")
    expect(ann.locator(".messages .quiet").last).to_have_text("bob came in")
    bob.context.close()
    expect(ann.locator(".messages .quiet").last).to_have_text("bob left")


def test_only_staff_may_enter_the_office(multichat: Site, open_page: Callable[..., Page]) -> None:
    ann, eve = enter(open_page, multichat, "ann"), enter(open_page, multichat, "eve")
    eve.click("text=Office")
    expect(eve.locator("section h2")).to_have_text("Office")
    ann.click("text=Office")
    expect(ann.locator("#error")).to_have_text("ROOM_ACCESS_DENIED")
    # Commands run on two workers: this one has to be answered before the next is sent.
    ann.evaluate("document.querySelector('#error').textContent = ''")
    ann.evaluate("bridge.send({ command: 'send', room: '1', message: 'from outside' })")
    expect(ann.locator("#error")).to_have_text("ROOM_ACCESS_DENIED")
    for message in ({"command": "join", "room": "99"}, {"command": "shout", "room": "1"}, {"room": "1"}, [1]):
        ann.evaluate("(message) => bridge.send(message)", message)
        expected = "ROOM_INVALID" if message == {"command": "join", "room": "99"} else "COMMAND_INVALID"
        expect(ann.locator("#error")).to_have_text(expected)
    expect(ann.locator("section")).to_have_count(0)


# -- databinding --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def databinding(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    code = f"{USERS}\nfrom databinding.models import *; IntegerValue.objects.create(name='Volume', value=10)"
    with example("databinding", tmp_path_factory.mktemp("databinding") / "site", code) as site:
        yield site


def test_two_pages_and_the_admin_change_the_same_numbers(
    databinding: Site, open_page: Callable[..., Page], artifacts: Path
) -> None:
    ann, bob = open_page(f"{databinding.url}/"), open_page(f"{databinding.url}/", width=390)
    pages = (ann, bob)
    for page in pages:
        expect(page.locator("output")).to_have_text(["10"])
        page.wait_for_function("bridge.socket.readyState === 1")
    ann.locator("input[type=range]").fill("42")
    expect(bob.locator("output")).to_have_text(["42"])
    kill_workers(databinding, *pages)
    bob.fill("#new input", "Brightness")
    bob.click("#new button")
    for page in pages:
        expect(page.locator("strong")).to_have_text(["Volume", "Brightness"])
    admin = open_page(f"{databinding.url}/admin/databinding/integervalue/1/change/")
    log_in(admin, "eve")
    expect(admin.locator("#id_value")).to_have_value("42")
    admin.fill("#id_value", "77")
    admin.click("[name=_save]")
    for number, page in enumerate(pages):
        expect(page.locator("output")).to_have_text(["77", "0"])
        page.screenshot(path=artifacts / f"example-databinding-{number}.png")
    assert_still_connected(*pages)
    ann.locator("#values button").first.click()
    for page in pages:
        expect(page.locator("strong")).to_have_text(["Brightness"])
