"""The access log's lines."""

import json

from procman.interface.access import ACCEPT, DISCONNECT, REQUEST, json_line, request_line, socket_line


def test_a_request_line_has_method_path_status_size_time_client_and_id():
    line = request_line("GET", "/path", 200, 1234, 0.0124, "127.0.0.1", "3fa21b7")
    assert line == "GET /path 200 1234 B 12 ms 127.0.0.1 3fa21b7"


def test_a_client_that_left_before_its_response_has_no_status():
    assert request_line("GET", "/", 0, 0, 1.0, "") == "GET / left 0 B 1000 ms - -"


def test_no_path_can_forge_a_line():
    line = request_line("GET", "/a\n127.0.0.1 GET /admin 200\x1b[2J", 404, 0, 0.0, "10.0.0.1")
    assert "\n" not in line and "\x1b" not in line
    assert "\n" not in socket_line(ACCEPT, "/a\r\nb\x85c\u2028d", "10.0.0.1")


def test_a_socket_line_has_the_close_code_and_the_id():
    assert socket_line(DISCONNECT, "/chat", "10.0.0.1", "1001", "7a") == "WebSocket DISCONNECT /chat 1001 10.0.0.1 7a"


def test_json_has_the_facts_the_action_and_the_time():
    line = json_line(REQUEST, {"path": "/ä", "status": 200, "client": ""}, 1700000000.5)
    assert json.loads(line) == {
        "time": "2023-11-14T22:13:20.500Z",
        "action": "REQUEST",
        "path": "/ä",
        "status": 200,
        "client": None,
    }


def test_json_is_one_line_of_plain_characters_whatever_the_path():
    path = "".join(map(chr, (*range(32), 127, 0x85, 0x9B, 0x2028, 0x1F600))) + '"\\'
    line = json_line(REQUEST, {"path": path}, 0.0)
    assert line.isascii() and line.isprintable()
    assert json.loads(line)["path"] == path
