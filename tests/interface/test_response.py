"""Responses to bytes, without a connection."""

import pytest

from procman.interface.errors import InvalidReply, Refusal
from procman.interface.messages import ResponseStart
from procman.interface.response import ResponseWriter, refusal_start, status_line

DATE = b"Mon, 23 Nov 2026 10:00:00 GMT"


def start(content: bytes = b"", more: bool = False, status: int = 200, *headers: tuple[bytes, bytes]) -> ResponseStart:
    return ResponseStart(status, list(headers), content, more)


LENGTH = (b"Content-Length", b"4")


def test_a_response_of_known_length_goes_out_in_one_piece():
    writer = ResponseWriter("GET", "1.1", True)
    data = writer.start(start(b"four", False, 200, (b"X-A", b"1"), LENGTH), DATE)
    assert data == b"HTTP/1.1 200 OK\r\nX-A: 1\r\nContent-Length: 4\r\nDate: " + DATE + b"\r\n\r\nfour"
    assert writer.has_ended and writer.keep_alive and writer.size == 4


def test_one_of_unknown_length_goes_out_in_chunks():
    writer = ResponseWriter("GET", "1.1", True)
    head = writer.start(start(b"", True), DATE)
    assert head.endswith(b"Transfer-Encoding: chunked\r\n\r\n")
    assert writer.content(b"a" * 17, True) == b"11\r\n" + b"a" * 17 + b"\r\n"
    assert writer.content(b"", True) == b"" and not writer.has_ended
    assert writer.content(b"b", False) == b"1\r\nb\r\n0\r\n\r\n"
    assert writer.has_ended and writer.size == 18


def test_to_a_client_without_chunks_the_end_of_the_connection_is_the_end():
    writer = ResponseWriter("GET", "1.0", True)
    assert writer.start(start(b"a", True), DATE).endswith(b"Connection: close\r\n\r\na")
    assert writer.content(b"b", False) == b"b" and not writer.keep_alive


def test_a_client_of_1_0_that_may_send_another_request_is_told_so():
    assert b"Connection: keep-alive\r\n" in ResponseWriter("GET", "1.0", True).start(
        start(b"four", False, 200, LENGTH), DATE
    )
    assert b"Connection: close\r\n" in ResponseWriter("GET", "1.1", False).start(
        start(b"four", False, 200, LENGTH), DATE
    )


def test_the_applications_own_date_is_the_only_one():
    data = ResponseWriter("GET", "1.1", True).start(
        start(b"", False, 200, (b"date", b"then"), (b"Content-Length", b"0")), DATE
    )
    assert data.lower().count(b"date:") == 1 and b"then" in data


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_a_response_that_has_no_content_ends_with_its_head(method: str, status: int):
    writer = ResponseWriter(method, "1.1", True)
    data = writer.start(start(b"four", True, status, LENGTH), DATE)
    assert data.endswith(b"\r\n\r\n") and (b"Content-Length" in data) is (method == "HEAD")
    assert writer.content(b"more", False) == b"" and writer.has_ended and writer.size == 0


@pytest.mark.parametrize("content", [b"fives", b"two"])
def test_content_that_does_not_fit_its_length_is_the_applications_fault(content: bytes):
    with pytest.raises(InvalidReply, match="Content-Length"):
        ResponseWriter("GET", "1.1", True).start(start(content, False, 200, LENGTH), DATE)
    writer = ResponseWriter("GET", "1.1", True)
    writer.start(start(b"", True, 200, LENGTH), DATE)
    with pytest.raises(InvalidReply, match="Content-Length"):
        writer.content(content, False)


@pytest.mark.parametrize("value", [b"-1", b"4, 4", b"", b"x"])
def test_a_length_that_is_no_number_is_the_applications_fault(value: bytes):
    with pytest.raises(InvalidReply, match="Content-Length"):
        ResponseWriter("GET", "1.1", True).start(start(b"four", False, 200, (b"Content-Length", value)), DATE)


def test_two_lengths_are_one_if_they_agree_and_refused_if_not():
    data = ResponseWriter("GET", "1.1", True).start(start(b"four", False, 200, LENGTH, LENGTH), DATE)
    assert data.count(b"Content-Length") == 1
    with pytest.raises(InvalidReply):
        ResponseWriter("GET", "1.1", True).start(start(b"four", False, 200, LENGTH, (b"content-length", b"5")), DATE)


def test_a_status_without_a_name_is_sent_all_the_same():
    assert status_line(404) == b"HTTP/1.1 404 Not Found\r\n"
    assert status_line(599) == b"HTTP/1.1 599 \r\n"


def test_a_refusal_is_a_sentence_and_says_when_to_come_back():
    start = refusal_start(Refusal(503, "Busy.", retry_after=2))
    assert (start.status, start.content) == (503, b"Busy.\n") and (b"Retry-After", b"2") in start.headers
    assert not any(name == b"Retry-After" for name, _ in refusal_start(Refusal(400, "No.")).headers)
