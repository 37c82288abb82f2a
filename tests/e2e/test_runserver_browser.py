"""``manage.py runserver`` as a developer sees it: a page stays connected while its code changes and fails."""

import subprocess
import sys
from pathlib import Path

from playwright.sync_api import expect

from tests.e2e.test_browser import open_page, say
from tests.e2e.test_runserver import edit, served, wait_for_reload
from tests.support.chromium import running_chromium


def test_a_chat_goes_on_through_reloads_and_a_syntax_error_on_one_connection(tmp_path: Path, artifacts: Path) -> None:
    subprocess.run([sys.executable, "-m", "procman", "new", "mysite"], cwd=tmp_path, check=True, capture_output=True)
    project = tmp_path / "mysite"
    subprocess.run([sys.executable, "manage.py", "setup_demo"], cwd=project, check=True, capture_output=True)
    with served(project) as site, running_chromium() as browser:
        opened: list[str] = []
        page = open_page(browser, f"{site.url}/chat/engine-room/")
        page.on("websocket", lambda socket: opened.append(socket.url))
        say(page, "before")
        expect(page.locator(".message .text").last).to_have_text("before")
        consumers = project / "chat" / "consumers.py"
        code = consumers.read_text()
        edit(site, consumers, code + "\n")
        wait_for_reload(site, 2)
        say(page, "after the reload")
        expect(page.locator(".message .text").last).to_have_text("after the reload")
        edit(site, consumers, code + "def broken(:\n")
        site.wait_for_line("SyntaxError")
        other = browser.new_context().new_page()
        other.goto(site.url)
        expect(other.locator("h1")).to_have_text("The code does not run")
        expect(other.locator("pre")).to_contain_text("SyntaxError: invalid syntax")
        other.screenshot(path=artifacts / "runserver-broken.png")
        say(page, "into the pause")
        edit(site, consumers, code)
        expect(page.locator(".message .text").last).to_have_text("into the pause", timeout=30_000)
        expect(other.locator("h1")).not_to_have_text("The code does not run", timeout=30_000)
        expect(page.locator("[data-state]").first).to_have_attribute("data-state", "open")
        assert opened == []  # the first connection is still the only one
