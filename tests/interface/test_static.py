"""Static files by the interface: what is found, how it is sent, and what is not."""

import gzip
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from procman.interface.exchange import FILE_PART
from procman.interface.static import StaticFiles, StaticResponse
from procman.settings import InterfaceSettings, ProjectConfiguration
from tests.support.interface import Running, read_response, running_interface
from tests.support.waiting import wait_until


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "static" / "css").mkdir(parents=True)
    (tmp_path / "static" / "css" / "site.css").write_text("body {}")
    (tmp_path / "static" / "app.0123456789ab.js").write_text("alert(1)")
    (tmp_path / "static" / "caf\xe9.txt").write_text("open")
    (tmp_path / "secret.txt").write_text("secret")
    return tmp_path / "static"


def project(root: Path, debug: bool = False, **values: object) -> ProjectConfiguration:
    options = {"static_url": "/static/", "static_roots": [["", str(root)]]} | values
    return ProjectConfiguration("mysite.settings", "fake://", allowed_hosts=["*"], debug=debug, **options)


def find(
    files: StaticFiles, path: str, method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], bytes] | None:
    pairs = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    found = files.find(method, path, pairs)
    if found is None:
        return None
    content = found.start.content
    if found.file is not None:
        with found.file:
            content = found.file.read()
    return found.start.status, {name.decode().lower(): value.decode() for name, value in found.start.headers}, content


@pytest.fixture
def files(root: Path) -> StaticFiles:
    return StaticFiles(project(root), True)


def test_a_file_comes_with_its_type_and_length_and_may_be_kept_for_a_minute(files: StaticFiles) -> None:
    found = find(files, "/static/css/site.css")
    assert found is not None and (found[0], found[2]) == (200, b"body {}")
    assert found[1]["content-type"] == 'text/css; charset="utf-8"' and found[1]["content-length"] == "7"
    assert found[1]["cache-control"] == "max-age=60, public"


def test_a_hashed_name_may_be_kept_for_ever(files: StaticFiles) -> None:
    found = find(files, "/static/app.0123456789ab.js")
    assert found is not None and found[1]["cache-control"].endswith("immutable")


def test_with_debug_browsers_always_ask_again(root: Path) -> None:
    found = find(StaticFiles(project(root, debug=True), False), "/static/app.css/../css/site.css")
    assert found is None
    found = find(StaticFiles(project(root, debug=True), False), "/static/css/site.css")
    assert found is not None and found[1]["cache-control"] == "max-age=0, public"


def test_what_the_client_has_is_not_sent_again(files: StaticFiles) -> None:
    first = find(files, "/static/css/site.css")
    assert first is not None
    again = find(files, "/static/css/site.css", if_none_match=first[1]["etag"])
    assert again is not None and (again[0], again[2]) == (304, b"")
    again = find(files, "/static/css/site.css", if_modified_since=first[1]["last-modified"])
    assert again is not None and again[0] == 304
    again = find(files, "/static/css/site.css", if_none_match='"other"')
    assert again is not None and again[0] == 200


def test_a_part_is_sent_where_it_is_asked_for(files: StaticFiles) -> None:
    found = find(files, "/static/css/site.css", range="bytes=1-3")
    assert found is not None and (found[0], found[2]) == (206, b"ody")
    assert found[1]["content-range"] == "bytes 1-3/7" and found[1]["content-length"] == "3"
    found = find(files, "/static/css/site.css", range="bytes=90-99")
    assert found is not None and found[0] == 416
    found = find(files, "/static/css/site.css", range="bytes=nonsense")
    assert found is not None and found[0] == 200


def test_a_compressed_variant_goes_to_those_who_take_it(files: StaticFiles, root: Path) -> None:
    (root / "css" / "site.css").write_text("body {}" * 100)
    (root / "css" / "site.css.gz").write_bytes(gzip.compress(b"body {}" * 100))
    found = find(files, "/static/css/site.css", accept_encoding="gzip, deflate")
    assert found is not None and found[1]["content-encoding"] == "gzip" and len(gzip.decompress(found[2])) == 700
    assert "accept-encoding" in found[1]["vary"].lower()
    found = find(files, "/static/css/site.css", accept_encoding="identity")
    assert found is not None and found[2] == b"body {}" * 100


@pytest.mark.parametrize(
    "path",
    [
        "/static/../secret.txt", "/static/css/../../secret.txt", "/static//etc/passwd", "/static/./css/site.css",
        "/static/css\\..\\..\\secret.txt", "/static/", "/static/css", "/static/css/", "/static/no.css",
        "/static/css/site.css\x00.png", "/static/" + "a" * 5000, "/static/css/site.css.gz",
    ],
)  # fmt: skip
def test_nothing_outside_and_nothing_that_is_no_file_is_found(files: StaticFiles, path: str) -> None:
    found = find(files, path)
    assert found is not None and found[0] == 404 and b"secret" not in found[2]


def test_what_is_elsewhere_is_left_to_the_workers(files: StaticFiles, root: Path) -> None:
    assert find(files, "/") is None and find(files, "/staticity/css/site.css") is None
    assert find(StaticFiles(project(root), False), "/static/css/site.css") is None
    assert find(StaticFiles(project(root, static_roots=[]), True), "/static/css/site.css") is None
    assert find(StaticFiles(project(root, static_url=""), True), "/static/css/site.css") is None


def test_with_debug_a_file_that_is_not_there_is_left_to_djangos_page(root: Path) -> None:
    assert find(StaticFiles(project(root, debug=True), False), "/static/no.css") is None


def test_only_get_and_head_are_for_files(files: StaticFiles) -> None:
    found = find(files, "/static/css/site.css", "POST")
    assert found is not None and found[0] == 405 and found[1]["allow"] == "GET, HEAD"
    found = find(files, "/static/css/site.css", "HEAD")
    assert found is not None and (found[0], found[1]["content-length"], found[2]) == (200, "7", b"")


def test_the_first_directory_with_a_file_counts_and_prefixes_are_below_the_url(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "css").mkdir(parents=True)
    (other / "css" / "site.css").write_text("other")
    roots = [["", str(other)], ["", str(root)], ["more", str(root)]]
    files = StaticFiles(project(root, static_roots=roots), True)
    for path, content in (("css/site.css", b"other"), ("more/css/site.css", b"body {}"), ("caf\xe9.txt", b"open")):
        found = find(files, "/static/" + path)
        assert found is not None and found[2] == content


def test_a_file_that_comes_later_is_found(files: StaticFiles, root: Path) -> None:
    (root / "late.css").write_text("late")
    assert find(files, "/static/late.css") is not None


# -- over a connection -----------------------------------------------------------------------------------------------


@pytest.fixture
def site(root: Path) -> Iterator[Running]:
    settings = InterfaceSettings(drain_timeout=1.0, static=True, request_timeout=5.0)
    with running_interface(settings, project(root)) as running:
        yield running


def ask(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: example.com", *headers, "", ""]).encode()


def test_files_are_sent_without_a_worker_and_the_connection_goes_on(site: Running, root: Path) -> None:
    content = os.urandom(5_000_000)
    (root / "large.bin").write_bytes(content)
    with site.raw(ask("/static/css/site.css")) as client:
        assert read_response(client)[2] == b"body {}"
        client.sendall(ask("/static/caf%C3%A9.txt"))
        assert read_response(client)[2] == b"open"
        client.sendall(ask("/static/%2e%2e/secret.txt"))
        assert read_response(client)[0] == 404
        client.sendall(ask("/static/large.bin"))
        assert read_response(client)[2] == content
        client.sendall(ask("/static/large.bin", "Range: bytes=1000000-3999999"))
        assert read_response(client)[2] == content[1_000_000:4_000_000]
        client.sendall(ask("/elsewhere"))
        assert site.layer.take()[1]["path"] == "/elsewhere"


def test_a_client_that_does_not_read_costs_no_memory_and_its_file_is_closed(site: Running, root: Path) -> None:
    with (root / "huge.bin").open("wb") as huge:
        huge.truncate(1024**3)
    with site.raw(ask("/static/huge.bin")) as client:
        assert client.recv(12) == b"HTTP/1.1 200"
        (exchange,) = wait_until(lambda: list(site.server.replies.clients.values()))
        wait_until(lambda: exchange.connection.is_behind)
        assert exchange.connection.transport.get_write_buffer_size() < 8 * FILE_PART
        file = exchange.file
        assert not file.closed
    wait_until(lambda: file.closed and not site.server.replies.clients)


def test_a_file_that_shrinks_while_it_is_sent_cuts_the_connection(site: Running, root: Path, caplog) -> None:
    with (root / "huge.bin").open("wb") as huge:
        huge.truncate(1024**3)
    with site.raw(ask("/static/huge.bin")) as client:
        (exchange,) = wait_until(lambda: list(site.server.replies.clients.values()))
        wait_until(lambda: exchange.connection.is_behind)
        os.truncate(root / "huge.bin", 0)
        with pytest.raises(OSError):
            while client.recv(1024 * 1024):
                pass
            raise ConnectionError
    wait_until(lambda: "cannot be sent to its end" in caplog.text)


def test_a_file_that_may_not_be_read_is_not_there_and_one_line_in_the_log(root: Path, monkeypatch, caplog) -> None:
    files = StaticFiles(project(root), True)

    def refuse(*arguments: object) -> StaticResponse:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("whitenoise.responders.StaticFile.get_response", refuse)
    found = find(files, "/static/css/site.css")
    assert found is not None and found[0] == 404
    (record,) = caplog.records
    assert "/static/css/site.css cannot be read" in record.getMessage()
