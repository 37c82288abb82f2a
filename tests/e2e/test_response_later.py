"""``ResponseLater`` on real processes: the view ends, another consumer answers, or nobody does."""

import contextlib
import http.client
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.clients import Browser
from tests.support.processes import Site, running_site


@pytest.fixture(scope="module", params=["0", "1"], ids=["plain", "debug"])
def later_site(request: pytest.FixtureRequest, project: Path) -> Iterator[Site]:
    """Two workers, whose clients wait two seconds; with and without DEBUG."""
    with running_site(project, "--workers", "2", "--request-timeout", "2", environ={"DEBUG": request.param}) as running:
        yield running


@pytest.mark.parametrize("path", ["/later/", "/later-async/"])
def test_the_client_gets_what_another_consumer_answers(later_site: Site, path: str) -> None:
    response = Browser(later_site.url).get(path)
    assert (response.status, response.text) == (202, "the end")
    assert response.headers["X-Answered-By"] == "consumer"
    assert "Traceback" not in later_site.log


def test_another_consumer_may_answer_in_parts(later_site: Site) -> None:
    response = Browser(later_site.url).get("/later/?parts=4")
    assert (response.status, response.text) == (202, "part 1, part 2, part 3, the end")


def test_a_request_that_nobody_answers_ends_with_504(later_site: Site) -> None:
    browser = Browser(later_site.url)
    response = browser.get("/later/?nobody")
    assert (response.status, response.text) == (504, "The application did not answer in time.\n")
    assert browser.get("/").status == 200


def test_many_requests_that_wait_take_no_worker(later_site: Site) -> None:
    """Both workers answer others while more requests than there are workers wait for their answers."""
    with contextlib.ExitStack() as stack:
        waiting = [
            stack.enter_context(
                contextlib.closing(http.client.HTTPConnection("127.0.0.1", later_site.port, timeout=20))
            )
            for _ in range(6)
        ]
        for connection in waiting:
            connection.request("GET", "/later/?nobody")
        assert Browser(later_site.url).get("/later/").status == 202
        answered, _, _ = select.select([connection.sock for connection in waiting], [], [], 0)
        assert not answered
        assert [connection.getresponse().status for connection in waiting] == [504] * 6
