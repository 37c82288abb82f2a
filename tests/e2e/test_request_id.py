"""One request id from the access log to the worker's lines and back to the client, on real processes."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.support.clients import Browser
from tests.support.processes import Site, running_site
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def talking(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    layer = f"ipc://{tmp_path_factory.mktemp('layer')}/l.sock"
    with running_site(
        project, "--workers", "2", "--access-log-format", "json", "--request-id-header", "--layer", layer
    ) as site:
        yield site


def access(site: Site, request_id: str) -> list[dict[str, Any]]:
    """Lines of the access log about *request_id*."""
    found = (json.loads(line) for line in re.findall(r"interface\.1[^{\n]*(\{.*\})", site.log))
    return [each for each in found if each["request_id"] == request_id]


def test_the_line_of_a_failing_view_has_the_id_that_the_client_was_told(talking: Site) -> None:
    response = Browser(talking.url).get("/boom/")
    request_id = response.headers["X-Request-ID"]
    talking.wait_for_line(rf"worker\.\d .*/boom/.*\[{request_id}\]")
    (line,) = wait_until(lambda: access(talking, request_id))
    assert (line["action"], line["path"], line["status"]) == ("REQUEST", "/boom/", 500)


def test_the_id_of_the_proxy_in_front_is_the_one_in_all_lines(talking: Site) -> None:
    response = Browser(talking.url).get("/boom/", headers={"X-Request-ID": "router-17"})
    assert response.headers["X-Request-ID"] == "router-17"
    talking.wait_for_line(r"worker\.\d .*/boom/.*\[router-17\]")
    wait_until(lambda: access(talking, "router-17"))


def test_frames_of_a_socket_have_the_id_of_the_socket(talking: Site) -> None:
    with connect(f"{talking.ws_url}/one/", compression=None) as client:
        assert client.response is not None
        request_id = client.response.headers["X-Request-ID"]
        client.send("raise")
        with pytest.raises(ConnectionClosed):
            client.recv(10)
    talking.wait_for_line(rf"worker\.\d .*error in consumer.*\[{request_id}\]")
    wait_until(lambda: len(access(talking, request_id)) == 3)
    assert [each["action"] for each in access(talking, request_id)] == ["CONNECT", "ACCEPT", "DISCONNECT"]
