"""The two worked examples in a real browser: what people see, not what the sockets carry."""

import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.chromium import running_chromium
from tests.support.processes import Site, free_port

ROOT = Path(__file__).parents[2]


def procfile_line(name: str) -> str:
    """The command of process type *name* in the project's Procfile."""
    for line in (ROOT / "Procfile").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return line.partition(":")[2].strip()
    raise AssertionError(f"no {name!r} in the Procfile")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A project made from the template, started by the line in the Procfile as a platform does, with PORT set."""
    directory = tmp_path_factory.mktemp("browser")
    subprocess.run([sys.executable, "-m", "procman", "new", "mysite"], cwd=directory, check=True, capture_output=True)
    project = directory / "mysite"
    subprocess.run([sys.executable, "manage.py", "setup_demo"], cwd=project, check=True, capture_output=True)
    create = "from django.contrib.auth.models import User; User.objects.create_superuser('ada', '', 'lovelace')"
    subprocess.run([sys.executable, "manage.py", "shell", "-c", create], cwd=project, check=True, capture_output=True)
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    site = Site(project, environ={"PORT": str(free_port()), "WEB_CONCURRENCY": "2", "PATH": path})
    # `exec`, as platforms do, so that the signal at the end reaches channels-run and not a shell.
    site.command = ["sh", "-c", f"exec {procfile_line('web')}"]
    try:
        yield site.start()
    finally:
        assert site.stop() == 0, shlex.join(site.command)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_chromium() as browser:
        yield browser


def open_page(browser: Browser, url: str, width: int = 1100) -> Page:
    """A page in a context of its own: another person. Errors of the page's scripts fail the test."""
    page = browser.new_context(viewport={"width": width, "height": 800}).new_page()
    page.set_default_timeout(15_000)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(url)
    expect(page.locator("[data-state]").first).to_have_attribute("data-state", "open", timeout=15_000)
    assert not errors
    return page


def say(page: Page, text: str) -> None:
    page.fill("#text", text)
    page.press("#text", "Enter")


def test_two_browsers_chat_with_each_other(site: Site, browser: Browser, artifacts: Path) -> None:
    ann = open_page(browser, f"{site.url}/chat/engine-room/")
    bob = open_page(browser, f"{site.url}/chat/engine-room/", width=400)
    expect(ann.locator("#people li")).to_have_count(2)
    say(ann, "Is anybody <b>there</b>?")
    expect(bob.locator(".message .text").last).to_have_text("Is anybody <b>there</b>?")
    say(bob, "Here I am.")
    expect(ann.locator(".message .text").last).to_have_text("Here I am.")
    expect(bob.locator(".message .text").last).to_have_text("Here I am.")
    ann.screenshot(path=artifacts / "chat-wide.png")
    bob.screenshot(path=artifacts / "chat-narrow.png")
    bob.context.close()
    expect(ann.locator("#people li")).to_have_count(1)
    ann.context.close()


def test_the_chat_goes_on_while_every_worker_is_killed(site: Site, browser: Browser) -> None:
    page = open_page(browser, f"{site.url}/chat/survivors/")
    page.evaluate("window.marker = 'the page was not loaded again'")
    for name in ("worker.1", "worker.2"):
        site.kill(name)
    say(page, "still talking")
    expect(page.locator(".message .text").last).to_have_text("still talking")
    assert page.evaluate("window.marker") == "the page was not loaded again"
    page.context.close()


def test_a_post_saved_in_a_shell_appears_in_every_open_page(site: Site, browser: Browser, artifacts: Path) -> None:
    pages = [open_page(browser, f"{site.url}/liveblog/"), open_page(browser, f"{site.url}/liveblog/", width=400)]
    code = (
        "from liveblog.models import BlogPost; BlogPost.objects.create(title='From a shell', body='Saved elsewhere.')"
    )
    subprocess.run(
        [sys.executable, "manage.py", "shell", "-c", code], cwd=site.directory, check=True, capture_output=True
    )
    for number, page in enumerate(pages):
        expect(page.locator(".post .name", has_text="From a shell")).to_be_attached()
        page.screenshot(path=artifacts / f"liveblog-{number}.png")
        page.context.close()


def test_a_post_saved_in_the_admin_appears_in_an_open_page(site: Site, browser: Browser, artifacts: Path) -> None:
    reader = open_page(browser, f"{site.url}/liveblog/")
    writer = browser.new_context().new_page()
    writer.goto(f"{site.url}/admin/liveblog/blogpost/add/")
    writer.fill("#id_username", "ada")
    writer.fill("#id_password", "lovelace")
    writer.click("input[type=submit]")
    writer.fill("#id_title", "From the admin")
    writer.fill("#id_body", "With Django's own forms.")
    writer.screenshot(path=artifacts / "admin.png")
    writer.click("input[name=_save]")
    expect(reader.locator(".post .name", has_text="From the admin")).to_be_attached()
    reader.context.close()
    writer.context.close()


def test_a_page_that_lost_its_connection_shows_it_and_catches_up(site: Site, browser: Browser) -> None:
    page = open_page(browser, f"{site.url}/liveblog/")
    state = page.locator("[data-state]").first
    site.kill("interface.1")
    expect(state).not_to_have_attribute("data-state", "open")
    code = "from liveblog.models import BlogPost; BlogPost.objects.create(title='Missed', body='While you were away.')"
    subprocess.run(
        [sys.executable, "manage.py", "shell", "-c", code], cwd=site.directory, check=True, capture_output=True
    )
    expect(state).to_have_attribute("data-state", "open", timeout=30_000)
    expect(page.locator(".post .name", has_text="Missed")).to_be_attached()
    page.context.close()
