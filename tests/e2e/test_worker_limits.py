"""Workers that are replaced after a number of messages, and workers in which nothing runs any more."""

import re
import signal
from pathlib import Path

import pytest

from tests.e2e.test_control import asking
from tests.e2e.test_kill import assert_answered_in_order, talk_on
from tests.support.clients import Browser, talking
from tests.support.processes import running_site
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow


def test_workers_are_replaced_after_their_number_of_messages_and_nobody_notices(project: Path) -> None:
    (project / "marks.jsonl").unlink(missing_ok=True)
    with running_site(project, "--workers", "2", "--max-messages", "200") as site:
        before = {name: site.pid_of(name) for name in ("worker.1", "worker.2")}
        with talking(site.ws_url, 20) as talkers, asking(site):
            for name in before:
                wait_until(
                    lambda name=name: site.pid_of(name) not in before.values(),
                    60,
                    what=f"{name} is replaced",  # type: ignore[misc]
                )
            talk_on(talkers)
            talkers.finish()
            assert_answered_in_order(talkers)
        assert len(re.findall("worker has done its number of messages and is replaced", site.log)) >= 2
        assert "WARNING" not in site.log and "ERROR" not in site.log


def test_a_worker_in_which_nothing_runs_is_killed_and_one_that_is_busy_is_not(project: Path) -> None:
    with running_site(project, "--workers", "2", "--liveness-timeout", "2", "--consumer-timeout", "5") as site:
        stopped = site.kill("worker.1", signal.SIGSTOP)
        site.wait_for_line(rf"ERROR worker\.1 \(pid {stopped}\) has shown no life for 2 s; killing it")
        wait_until(lambda: site.pid_of("worker.1") != stopped, 20)
        assert Browser(site.url).get("/hang/?how=loop", timeout=30).status == 504
        assert site.log.count("has shown no life") == 1


def test_a_worker_that_holds_the_interpreter_says_where(project: Path) -> None:
    with running_site(project, "--workers", "1", "--liveness-timeout", "2") as site:
        assert Browser(site.url).get("/hang/?how=c", timeout=30).status == 502
        site.wait_for_line(r"worker\.1 +\| Fatal Python error: Aborted[\s\S]*in stuck")


def test_the_largest_worker_is_replaced_when_the_site_uses_too_much_memory(project: Path) -> None:
    with running_site(project, "--workers", "2", "--max-rss", "1") as site:
        before = {site.pid_of(name) for name in ("worker.1", "worker.2")}
        assert re.search(r"system +\| limits: \d+ open files", site.log)
        site.wait_for_line(r"WARNING the site uses \d+ MiB, over --max-rss 1; replacing worker\.\d", 60)
        wait_until(lambda: {site.pid_of(name) for name in ("worker.1", "worker.2")} != before, 20)
        assert Browser(site.url).get("/").status == 200
