"""Uploads through real processes: they stream, whatever their size, and may be refused before they are there."""

import hashlib
import http.client
import json
import socket

import pytest

from tests.support.clients import Browser
from tests.support.processes import Site, memory_kib
from tests.support.waiting import wait_until

MIB = 1024 * 1024
BOUNDARY = b"end-to-end"


def open_upload(site: Site, path: str, size: int, cookie: str = "") -> socket.socket:
    """A connection on which a POST of *size* bytes has been announced and nothing of it sent."""
    client = socket.create_connection(("127.0.0.1", site.port), timeout=30)
    lines = [
        f"POST {path} HTTP/1.1",
        f"Host: 127.0.0.1:{site.port}",
        f"Content-Type: multipart/form-data; boundary={BOUNDARY.decode()}",
        f"Content-Length: {size}",
        *([f"Cookie: {cookie}"] if cookie else ()),
    ]
    client.sendall("\r\n".join([*lines, "", ""]).encode())
    return client


def part(name: str, value: bytes = b"", filename: str = "") -> bytes:
    """The head of a part of a form, and its value."""
    more = f'; filename="{filename}"' if filename else ""
    head = f'--{BOUNDARY.decode()}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'
    return head.encode() + value


@pytest.mark.slow
def test_the_memory_of_worker_and_interface_stays_flat_for_64_megabytes(site: Site) -> None:
    browser = Browser(site.url)
    token = browser.get("/form/").text
    pids = {name: site.pid_of(name) for name in ("interface.1", "worker.1", "worker.2")}
    before = {name: memory_kib(pid)["VmRSS"] for name, pid in pids.items()}
    block = bytes(range(256)) * (MIB // 256)
    head = part("csrfmiddlewaretoken", token.encode() + b"\r\n") + part("file", filename="large.bin")
    tail = b"\r\n--" + BOUNDARY + b"--\r\n"
    digest = hashlib.sha256()
    cookie = f"csrftoken={browser.cookies['csrftoken']}"
    with open_upload(site, "/form/", len(head) + 64 * MIB + len(tail), cookie) as client:
        client.sendall(head)
        for _ in range(64):
            client.sendall(block)
            digest.update(block)
        client.sendall(tail)
        response = http.client.HTTPResponse(client)
        response.begin()
        assert response.status == 200
        seen = json.loads(response.read())
        response.close()
    assert (seen["size"], seen["sha256"]) == (64 * MIB, digest.hexdigest())
    for name, pid in pids.items():
        assert memory_kib(pid)["VmHWM"] - before[name] < 24 * 1024, name


def test_a_view_may_refuse_an_upload_of_which_nothing_has_come(site: Site) -> None:
    with open_upload(site, "/boom/", 50 * MIB) as client, client.makefile("rb") as answer:
        assert b" 403 " in answer.readline()


def test_a_client_that_leaves_in_its_upload_is_no_error(site: Site) -> None:
    browser = Browser(site.url)
    token = browser.get("/form/").text
    cookie = f"csrftoken={browser.cookies['csrftoken']}"
    with open_upload(site, "/form/", 4 * MIB, cookie) as client:
        client.sendall(part("csrfmiddlewaretoken", token.encode() + b"\r\n") + part("file", bytes(MIB), "f"))
    with open_upload(site, "/form/", 4 * MIB, cookie) as client:
        client.sendall(part("file", bytes(MIB), "f"))
    workers = {site.pid_of("worker.1"), site.pid_of("worker.2")}
    seen: set[int] = set()

    def have_both_answered() -> bool:
        seen.add(int(browser.get("/pid/").text))
        return seen == workers

    wait_until(have_both_answered, 30, what="both workers have done with their uploads")
    assert "Traceback" not in site.log
