"""The access log's lines."""

from procman.interface.access import ACCEPT, DISCONNECT, request_line, socket_line


def test_a_request_line_has_method_path_status_size_time_and_client():
    line = request_line("GET", "/path", 200, 1234, 0.0124, "127.0.0.1")
    assert line == "GET /path 200 1234 B 12 ms 127.0.0.1"


def test_a_client_that_left_before_its_response_has_no_status():
    assert request_line("GET", "/", 0, 0, 1.0, "") == "GET / left 0 B 1000 ms -"


def test_no_path_can_forge_a_line():
    line = request_line("GET", "/a\n127.0.0.1 GET /admin 200\x1b[2J", 404, 0, 0.0, "10.0.0.1")
    assert "\n" not in line and "\x1b" not in line
    assert "\n" not in socket_line(ACCEPT, "/a\r\nb\x85c\u2028d", "10.0.0.1")


def test_a_socket_line_has_the_close_code():
    assert socket_line(DISCONNECT, "/chat", "10.0.0.1", "1001") == "WebSocket DISCONNECT /chat 1001 10.0.0.1"
