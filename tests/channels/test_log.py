"""The logger django.channels: ours unless the project configured it."""

import io
import logging
import sys
from types import SimpleNamespace

import pytest

from procman.channels import log


@pytest.fixture
def name(request):
    """A logger of the test's own: pytest adds handlers to those that exist before."""
    return f"django.channels.{request.node.name}"


@pytest.mark.parametrize(("verbosity", "level"), [(0, logging.WARNING), (1, logging.INFO), (2, logging.DEBUG)])
def test_verbosity_chooses_the_level(name, verbosity, level):
    logger = log.setup_logger(name, verbosity)
    assert logger.level == level
    assert logger.handlers == [log.handler]
    assert log.setup_logger(name, verbosity).handlers == [log.handler]


def test_a_logger_that_the_project_configured_keeps_its_handlers(name):
    logger = logging.getLogger(name)
    own = logging.NullHandler()
    logger.addHandler(own)
    assert log.setup_logger(name).handlers == [own]


@pytest.fixture
def loggers():
    """The two loggers, put back afterwards."""
    found = [logging.getLogger("django"), logging.getLogger("django.channels")]
    before = [(logger, list(logger.handlers), logger.level, logger.propagate) for logger in found]
    for logger in found:
        logger.handlers.clear()
    yield found
    for logger, handlers, level, propagate in before:
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


def test_errors_of_a_project_without_logging_appear(loggers):
    log.setup_worker_logging(SimpleNamespace(LOGGING={}, DEBUG=False))
    (errors,) = loggers[0].handlers
    assert errors.level == logging.ERROR
    assert loggers[1].handlers == [log.handler]


def test_in_debug_django_prints_by_itself(loggers):
    log.setup_worker_logging(SimpleNamespace(LOGGING={}, DEBUG=True))
    assert loggers[0].handlers == []


@pytest.mark.parametrize("config", [{"root": {"handlers": ["x"]}}, {"loggers": {"django": {}}}])
def test_a_project_that_configured_logging_keeps_it(loggers, config):
    log.setup_worker_logging(SimpleNamespace(LOGGING=config, DEBUG=False))
    assert [logger.handlers for logger in loggers] == [[], []]


class Broken(logging.Handler):
    """A handler that cannot log."""

    def emit(self, record):
        raise SystemExit("the log is broken")


def test_what_could_not_be_logged_appears_on_stderr_with_its_exception(name, capfd, monkeypatch):
    monkeypatch.setattr(sys, "__stderr__", sys.stderr)
    logging.getLogger(name).addHandler(Broken())
    try:
        raise KeyError("why")
    except KeyError:
        log.Unfailing(name).exception("the job %s failed", "mail")
    text = capfd.readouterr().err
    assert "ERROR the job mail failed (logging failed: SystemExit)" in text
    assert "builtins.KeyError" in text
    assert "test_log.py" in text


@pytest.mark.parametrize("stream", [None, "closed"])
def test_an_unfailing_logger_needs_no_stderr(name, monkeypatch, stream):
    if stream == "closed":
        stream = io.StringIO()
        stream.close()
    monkeypatch.setattr(sys, "__stderr__", stream)
    logging.getLogger(name).addHandler(Broken())
    log.Unfailing(name).error("wrong %d arguments", "many", exc_info=ValueError())


@pytest.mark.parametrize("level", ["info", "warning", "error", "exception"])
def test_an_unfailing_logger_logs_from_where_it_is_called(caplog, level):
    with caplog.at_level(logging.INFO, "django.channels"):
        getattr(log.Unfailing("django.channels"), level)("%d of %d", 1, 2)
    (record,) = caplog.records
    assert record.getMessage() == "1 of 2"
    assert record.levelname == {"exception": "ERROR"}.get(level, level.upper())
    assert record.filename == "test_log.py"


SOCKET = "interface.1.0a1b2c3d!ws-77f"


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"reply_channel": SOCKET}, "77f"),
        ({"reply_channel": "interface.1.0a1b2c3d!12"}, "12"),
        ({"reply_channel": SOCKET, "request_id": "given"}, "given"),
        ({"reply_channel": SOCKET, "request_id": 7}, "77f"),
        ({"reply_channel": None}, ""),
        ({}, ""),
    ],
)
def test_the_id_of_a_message_is_the_proxys_or_the_end_of_its_reply_channel(content, found):
    assert log.request_id_of(content) == found


def record(text="text", level=logging.ERROR):
    return logging.LogRecord("a", level, "a.py", 1, text, (), None)


def test_records_have_the_id_while_a_consumer_runs_and_a_dash_otherwise():
    made, given = record(), record()
    token = log.begin_request({"reply_channel": SOCKET})
    assert log.current_request_id() == "77f" and log.RequestIdFilter().filter(made)
    given.request_id = "own"
    log.RequestIdFilter().filter(given)
    log.end_request(token)
    after = record()
    log.RequestIdFilter().filter(after)
    assert (made.request_id, given.request_id, after.request_id) == ("77f", "own", "-")


def test_the_lines_of_a_project_without_logging_end_in_the_id(name, monkeypatch):
    stream = io.StringIO()
    logger = log.setup_logger(name)
    monkeypatch.setattr(log.handler, "stream", stream)
    token = log.begin_request({"request_id": "evil\n1"})
    logger.warning("during")
    log.end_request(token)
    logger.warning("after")
    assert stream.getvalue() == "WARNING during [evil\\x0a1]\nWARNING after\n"
