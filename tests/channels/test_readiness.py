"""Whether a site is ready, told over each kind of layer with real workers."""

import http.client

import pytest

from procman.channels import route
from tests.support.inprocess import site_over
from tests.support.waiting import wait_until


@pytest.mark.parametrize("kind", ["memory", "ipc"])
def test_a_site_is_ready_as_long_as_workers_are_with_its_layer(kind):
    with site_over(kind, [route("unread", lambda message: None)]) as site:

        def ready() -> tuple[int, str]:
            connection = http.client.HTTPConnection(site.url.removeprefix("ws://"), timeout=5)
            connection.request("GET", "/-/readyz")
            response = connection.getresponse()
            found = response.status, response.read().decode()
            connection.close()
            return found

        wait_until(lambda: ready() == (200, "ready\n"), 10)
        for worker in site.workers:
            worker.stop()
        wait_until(lambda: ready() == (503, "not ready: no worker takes messages\n"), 10)
