"""HTTP from the socket to Django's views and back, on real processes."""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.clients import Browser
from tests.support.processes import Site, running_site


@pytest.fixture
def browser(site: Site) -> Browser:
    return Browser(site.url)


def test_a_get_is_answered_by_the_view(browser: Browser) -> None:
    response = browser.get("/")
    assert (response.status, response.text) == (200, "hello")
    assert response.headers["Content-Type"] == "text/plain"


def test_both_workers_take_requests(browser: Browser, site: Site) -> None:
    seen = {int(browser.get("/pid/").text) for _ in range(200)}
    assert seen <= {site.pid_of("worker.1"), site.pid_of("worker.2")} and seen


def test_a_form_with_a_csrf_token_and_a_five_megabyte_file_arrives_whole(browser: Browser) -> None:
    token = browser.get("/form/").text
    data = os.urandom(5 * 1024 * 1024)
    response = browser.post_form("/form/", {"csrfmiddlewaretoken": token, "name": "Grüße"}, {"file": data})
    assert response.status == 200
    assert json.loads(response.body) == {
        "name": "Grüße",
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def test_a_small_form_arrives_whole(browser: Browser) -> None:
    token = browser.get("/form/").text
    response = browser.post_form("/form/", {"csrfmiddlewaretoken": token, "name": "x"})
    assert json.loads(response.body)["name"] == "x"


def test_a_form_without_its_csrf_token_is_refused(browser: Browser) -> None:
    assert browser.post_form("/form/", {"name": "x"}).status == 403


def test_a_large_upload_without_a_token_is_refused_and_the_site_goes_on(browser: Browser) -> None:
    response = browser.post_form("/form/", {"name": "x"}, {"file": bytes(3 * 1024 * 1024)})
    assert response.status == 403
    assert browser.get("/").status == 200


def test_a_body_over_the_limit_is_refused_with_413(project: Path, tmp_path: Path) -> None:
    with running_site(
        project, "--workers", "1", "--max-body-size", "1000", "--layer", f"ipc://{tmp_path}/l.sock"
    ) as site:
        browser = Browser(site.url)
        assert browser.request("POST", "/form/", b"x" * 1001).status == 413
        assert browser.get("/").status == 200


def test_a_streamed_response_arrives_in_parts_and_whole(browser: Browser) -> None:
    response = browser.get("/stream/?parts=10")
    assert response.status == 200
    assert response.headers["Transfer-Encoding"] == "chunked"
    assert response.text.split() == [str(n) for n in range(10)]


def test_a_large_streamed_response_arrives_whole(browser: Browser) -> None:
    response = browser.get("/stream/?parts=40&size=500000")
    assert len(response.body) == 40 * 500000
    assert response.text.split() == [str(n) for n in range(40)]


def test_an_unknown_page_is_404(browser: Browser) -> None:
    response = browser.get("/nowhere/")
    assert response.status == 404
    assert "Not Found" in response.text


def test_a_failing_view_is_500_and_its_traceback_is_in_the_log(browser: Browser, site: Site) -> None:
    assert browser.get("/boom/").status == 500
    site.wait_for_line(r"worker\.\d .*ValueError: asked to")


def test_head_has_headers_and_no_body(browser: Browser) -> None:
    response = browser.request("HEAD", "/")
    assert (response.status, response.body) == (200, b"")
    assert response.headers["Content-Length"] == "5"


def test_a_host_that_is_not_allowed_is_refused_by_django(browser: Browser) -> None:
    assert browser.get("/form/", headers={"Host": "evil.example"}).status == 400


def test_debug_pages_admin_login_and_static_files_work_in_debug(project: Path, tmp_path: Path) -> None:
    create = "from django.contrib.auth.models import User; User.objects.create_superuser('ada', '', 'lovelace')"
    subprocess.run([sys.executable, "manage.py", "shell", "-c", create], cwd=project, check=True, capture_output=True)
    with running_site(project, "--workers", "2", "--layer", f"ipc://{tmp_path}/l.sock", environ={"DEBUG": "1"}) as site:
        browser = Browser(site.url)
        assert "Using the URLconf defined in" in browser.get("/nowhere/").text
        assert "ValueError" in browser.get("/boom/").text

        login = browser.get("/admin/login/?next=/admin/")
        stylesheet = re.search(r'href="(/static/admin/css/base[^"]*\.css)"', login.text)
        assert stylesheet
        css = browser.get(stylesheet[1])
        assert css.status == 200 and css.headers["Content-Type"].startswith("text/css") and len(css.body) > 5000

        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', login.text)
        assert token
        fields = {"csrfmiddlewaretoken": token[1], "username": "ada", "password": "lovelace", "next": "/admin/"}
        answer = browser.post_form("/admin/login/", fields)
        assert (answer.status, answer.headers["Location"]) == (302, "/admin/")
        assert "Site administration" in browser.get("/admin/").text


def test_a_project_without_any_setting_of_ours_is_served(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "django", "startproject", "plain", str(tmp_path)], check=True)
    with running_site(tmp_path, "--workers", "1") as site:
        response = Browser(site.url).get("/")
        assert response.status == 200
        assert "The install worked successfully" in response.text


def test_djangos_system_checks_find_nothing_in_a_project_of_ours(project: Path) -> None:
    command = [sys.executable, "manage.py", "check", "--fail-level", "WARNING"]
    checked = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout) == (0, "System check identified no issues (0 silenced).\n"), (
        checked.stderr
    )


def test_a_transaction_that_a_view_leaves_open_breaks_no_later_request(browser: Browser) -> None:
    for _ in range(6):  # both workers, most likely
        assert browser.get("/left-open/").status == 200
        assert [browser.get("/users/").status for _ in range(4)] == [200] * 4
