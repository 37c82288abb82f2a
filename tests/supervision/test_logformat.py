import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procman.log import JSONFormatter
from procman.supervision.logformat import JSON, LOGFMT, TEXT, LevelFilter, LevelReader, Voice, to_logfmt

AT = 1_764_000_000.5
TIME = "2025-11-24T16:00:00.500Z"


def voice(kind: str, least: str = "debug") -> Voice:
    return Voice("worker.2", b"worker.2 | ", kind, least, lambda: AT)


def test_text_is_passed_on_with_its_prefix() -> None:
    out = b"worker.2 | one\nworker.2 | \nworker.2 | two\n"
    assert voice(TEXT).render(b"one\n\ntwo\n") == (out, out)


def test_a_line_becomes_an_object_with_the_level_that_it_begins_with() -> None:
    everything, visible = voice(JSON, "warning").render(b"\x1b[31mERROR no\x1b[0m \xff\r\nfine\n")
    lines = [json.loads(line) for line in everything.splitlines()]
    assert lines == [
        {"time": TIME, "process": "worker.2", "level": "error", "message": "ERROR no \\xff"},
        {"time": TIME, "process": "worker.2", "level": "info", "message": "fine"},
    ]
    assert visible == everything.splitlines(keepends=True)[0]


def test_the_fields_of_an_object_are_kept_but_not_the_name_of_its_process() -> None:
    line = b'{"time": "t", "process": "forged", "severity": "WARN", "message": "x", "status": 200}\n'
    record = json.loads(voice(JSON).render(line)[0])
    assert record["process"] == "worker.2" and record["level"] == "warning" and record["time"] == "t"
    assert record["status"] == 200 and record["message"] == "x"
    for odd in (b"{broken}\n", b"[1, 2]\n", b'{"a": 1} trailing\n', b"{" * 5000 + b"}" * 5000 + b"\n"):
        assert json.loads(voice(JSON).render(odd)[0])["message"] == odd.decode().strip()


def test_logfmt() -> None:
    record = {"a": "plain", "b": "two words", "c": 'quo"te', "d": 3, "e": None, "f": "", "g h": "x=y", "i": "a\nb"}
    assert to_logfmt(record) == r'a=plain b="two words" c="quo\"te" d=3 e=null f="" g_h="x=y" i="a\nb"'
    line = voice(LOGFMT).render(b"WARNING it is late\n")[0]
    assert line == f'time={TIME} process=worker.2 level=warning message="WARNING it is late"\n'.encode()


@given(
    st.lists(st.binary(max_size=60).map(lambda line: line.replace(b"\n", b""))), st.sampled_from([TEXT, JSON, LOGFMT])
)
def test_each_line_gives_one_line_whatever_is_in_it(lines: list[bytes], kind: str) -> None:
    if lines:
        everything, _ = voice(kind, "info").render(b"".join(line + b"\n" for line in lines))
        assert everything.count(b"\n") == len(lines) and everything.endswith(b"\n")
        if kind == JSON:
            assert all(json.loads(line)["process"] == "worker.2" for line in everything.splitlines())


@pytest.mark.parametrize(
    ("line", "level"),
    [
        (b"ERROR x", "error"),
        (b"2026-11-23 10:00:00,123 WARNING x", "warning"),
        (b"[2026-11-23 10:00:00] [INFO] x", "info"),
        (b"CRITICAL:root:x", "error"),
        (b"celery.beat | DEBUG | x", "debug"),
        (b"no ERRORS here", "info"),
        (b"GET /ERROR 200", "info"),
        (b"an error in small letters", "info"),
        (b"x" * 60 + b" ERROR", "info"),
    ],
)
def test_levels(line: bytes, level: str) -> None:
    assert LevelReader().read(line) == level


def test_a_traceback_has_the_level_of_the_line_before_it() -> None:
    reader = LevelReader()
    lines = [
        b"ERROR view failed", b"Traceback (most recent call last):", b'  File "x", line 1', b"", b"    raise X",
        b"ValueError: INFO is no level here", b"GET / 200",
    ]  # fmt: skip
    assert [reader.read(line) for line in lines] == ["error"] * 6 + ["info"]
    assert LevelReader().read(lines[1]) == "error"  # of a script that died


def test_records_of_this_project_as_objects() -> None:
    record = logging.LogRecord("procman.x", logging.CRITICAL, __file__, 1, "it %s", ("is",), None)
    record.__dict__ |= {"request_id": "8c01", "action": "REQUEST", "details": {"status": 200, "level": "no"}}
    try:
        raise ValueError("why")
    except ValueError as error:
        record.exc_info = (type(error), error, error.__traceback__)
    said = json.loads(JSONFormatter().format(record))
    assert said["level"] == "error" and said["message"] == "it is" and said["logger"] == "procman.x"
    assert said["request_id"] == "8c01" and said["status"] == 200 and said["action"] == "REQUEST"
    assert said["exception"].endswith("ValueError: why")


def test_a_merged_log_is_filtered_by_level_in_each_format() -> None:
    lines = (
        b"worker.1 | ERROR it failed\n", b"worker.2    | fine\n", b"worker.1 | Traceback (most recent call last):\n",
        b"worker.1 |   File x\n", b"worker.1 | ValueError: x\n", b"system      | WARNING late\n",
        b'{"process": "worker.1", "level": "warning", "message": "x"}\n', b'{"level": "info", "message": "ERROR"}\n',
        b'time=2026 process=worker.1 level=error message=x\n',
    )  # fmt: skip
    warnings = LevelFilter("warning")
    assert [warnings.passes(line) for line in lines] == [True, False, True, True, True, True, True, False, True]
    errors = LevelFilter("error")
    assert [errors.passes(line) for line in lines] == [True, False, True, True, True, False, False, False, True]
    assert all(LevelFilter("debug").passes(line) for line in lines)
