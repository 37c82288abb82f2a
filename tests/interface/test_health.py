"""Health answers: the decision, and the answers of a real interface."""

import pytest

from procman.interface.health import State, answer, normalize
from procman.settings import InterfaceSettings
from tests.support.interface import Running, read_response, running_interface
from tests.support.waiting import wait_until

READY = State(is_stopping=False, is_layer_lost=False, workers=2, age=1.0, max_age=8.0)


@pytest.mark.parametrize(("setting", "prefix"), [("/-", "/-"), ("-/", "/-"), ("", ""), ("off", ""), ("/", "")])
def test_the_prefix_is_a_path_or_nothing(setting, prefix):
    assert normalize(setting) == prefix


def test_other_paths_are_none_of_its_business():
    for path in ("/", "/-", "/-/", "/-/healthz/", "/-/other", "/healthz", "/-healthz"):
        assert answer("/-", path, READY) is None
    assert answer("", "/healthz", READY) is None


def test_a_process_that_answers_lives_whatever_is_wrong():
    broken = State(is_stopping=True, is_layer_lost=True, workers=None, age=99.0, max_age=8.0)
    assert answer("/-", "/-/healthz", broken) == (200, "ok")


def test_a_site_is_ready_when_a_worker_is_there():
    assert answer("/-", "/-/readyz", READY) == (200, "ready")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"is_stopping": True}, "the server is stopping"),
        ({"is_layer_lost": True}, "the channel layer is away"),
        ({"workers": None}, "the channel layer does not answer"),
        ({"age": 9.0}, "the channel layer does not answer"),
        ({"workers": 0}, "no worker takes messages"),
    ],
)
def test_the_answer_says_why_a_site_is_not_ready(change, reason):
    assert answer("/-", "/-/readyz", READY._replace(**change)) == (503, f"not ready: {reason}")


def ask(site: Running, path: str, method: str = "GET") -> tuple[int, str]:
    with site.raw(f"{method} {path} HTTP/1.1\r\nHost: any\r\nConnection: close\r\n\r\n".encode()) as client:
        client.settimeout(5)
        if method == "HEAD":
            data = b"".join(iter(lambda: client.recv(4096), b""))
            head, _, content = data.partition(b"\r\n\r\n")
            return int(head.split()[1]), content.decode()
        status, _, content = read_response(client)
        return status, content.decode()


def test_an_interface_answers_without_a_worker_and_without_the_layer():
    with running_interface() as site:
        wait_until(lambda: ask(site, "/-/readyz") == (200, "ready\n"))
        assert ask(site, "/-/healthz") == (200, "ok\n")
        assert ask(site, "/-/healthz?probe=1") == (200, "ok\n")
        assert ask(site, "/-/healthz", "HEAD") == (200, "")
        assert ask(site, "/-/healthz", "POST")[0] == 405
        site.layer.loop.call_soon_threadsafe(site.layer.handler.on_layer_lost)
        wait_until(lambda: ask(site, "/-/readyz") == (503, "not ready: the channel layer is away\n"))
        assert ask(site, "/-/healthz")[0] == 200
        assert site.layer.offers.empty()


def test_an_interface_whose_layer_never_answered_a_question_is_not_ready():
    with running_interface() as site:
        site.layer.is_silent = True
        site.server.site.survey.statistics = {}
        assert ask(site, "/-/readyz") == (503, "not ready: the channel layer does not answer\n")


def test_the_path_is_below_the_root_path_or_at_the_server_itself():
    with running_interface(InterfaceSettings(drain_timeout=1.0, root_path="/site", health_path="/up")) as site:
        assert ask(site, "/up/healthz") == (200, "ok\n")
        assert ask(site, "/site/up/healthz") == (200, "ok\n")


def test_health_answers_can_be_off():
    with running_interface(InterfaceSettings(drain_timeout=1.0, health_path="off")) as site:
        with site.raw(b"GET /-/healthz HTTP/1.1\r\nHost: example.com\r\n\r\n"):
            assert site.layer.take("http.request")[1]["path"] == "/-/healthz"


def test_health_is_told_when_too_many_requests_are_in_progress():
    with running_interface(InterfaceSettings(drain_timeout=0.1, max_requests=1)) as site:
        with site.raw(b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"):
            site.layer.take("http.request")
            assert ask(site, "/-/healthz") == (200, "ok\n")
            assert ask(site, "/")[0] == 503
            assert site.server.site.counters.refusals == {"max_requests": 1}
