"""Logging of the worker: logger ``django.channels``, as in 1.x. Django's own configuration of it wins.

While a consumer or view runs, its request id is known here, the same that the interface's access log has: put
``RequestIdFilter`` on a handler in ``LOGGING`` and ``%(request_id)s`` into its format. The handlers made here have it.
"""

import contextlib
import logging
import sys
import traceback
from collections.abc import Mapping
from contextvars import ContextVar, Token
from typing import Any

from procman.layers import names
from procman.log import OneLineFormatter, choose_formatter, escape

_request_id: ContextVar[str] = ContextVar("procman_request_id", default="")


def request_id_of(content: Mapping[str, Any]) -> str:
    """The id of the request or WebSocket that the message *content* belongs to; "" if it belongs to none.

    It is the one that a trusted proxy gave, or the interface's own, which the reply channel ends in: so a message that
    was forwarded with it has it too.
    """
    given = content.get("request_id")
    if isinstance(given, str) and given:
        return given
    reply_channel = content.get("reply_channel")
    return names.client_id(reply_channel) if isinstance(reply_channel, str) else ""


def current_request_id() -> str:
    """The id of the request or WebSocket whose consumer runs in this thread; "" outside of one."""
    return _request_id.get()


def begin_request(content: Mapping[str, Any]) -> Token[str]:
    """The consumer of *content* begins in this thread; the result is for ``end_request``."""
    return _request_id.set(request_id_of(content))


def end_request(token: Token[str]) -> None:
    """It has ended."""
    _request_id.reset(token)


class RequestIdFilter(logging.Filter):
    """Gives every record ``request_id``, ``-`` outside of a request; lets everything pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Add it, unless the record was given one with ``extra``."""
        if not hasattr(record, "request_id"):
            record.request_id = escape(_request_id.get()) or "-"
        return True


class _RequestFormatter(OneLineFormatter):
    """Lines that end in the request id, where there is one; a traceback follows it."""

    def __init__(self) -> None:
        super().__init__("%(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The message and the id."""
        text = super().formatMessage(record)
        request_id = getattr(record, "request_id", "-")
        return text if request_id == "-" else f"{text} [{request_id}]"


def _prepare(made: logging.Handler) -> None:
    made.addFilter(RequestIdFilter())
    made.setFormatter(choose_formatter(_RequestFormatter()))


handler = logging.StreamHandler()


def setup_logger(name: str, verbosity: int = 1) -> logging.Logger:
    """The logger *name*, writing to stderr. *verbosity* 0: warnings only, 1: information, 2 and above: debug.

    A logger that the project's ``LOGGING`` gave handlers keeps them and its level.
    """
    logger = logging.getLogger(name)
    if any(known is not handler for known in logger.handlers):
        return logger
    if handler.formatter is None:
        _prepare(handler)
    logger.setLevel({0: logging.WARNING, 1: logging.INFO}.get(verbosity, logging.DEBUG))
    logger.propagate = False
    logger.handlers[:] = [handler]
    return logger


def setup_worker_logging(settings: Any) -> None:
    """See to it that errors of consumers and views appear on stderr in a project that did not configure logging.

    Where ``LOGGING`` says what becomes of the root logger's or Django's records, nothing is added. Without it Django
    prints nothing while ``DEBUG`` is off, and a traceback would be seen by nobody but ``ADMINS``.
    """
    configured: dict[str, Any] = settings.LOGGING or {}
    loggers = configured.get("loggers", {})
    if configured.get("root") or loggers.keys() & {"", "django", "django.channels"}:
        return
    setup_logger("django.channels")
    if not settings.DEBUG and "django.request" not in loggers:
        errors = logging.StreamHandler()
        errors.setLevel(logging.ERROR)
        _prepare(errors)
        logging.getLogger("django").addHandler(errors)


class Unfailing:
    """The logger *name* for code that must go on: what handlers, filters and formatters raise stays in here.

    A record that could not be logged appears on the original stderr instead, if that is there.
    """

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def info(self, text: str, *arguments: Any) -> None:
        """As ``Logger.info``."""
        self._log(logging.INFO, text, arguments)

    def warning(self, text: str, *arguments: Any) -> None:
        """As ``Logger.warning``."""
        self._log(logging.WARNING, text, arguments)

    def error(self, text: str, *arguments: Any, exc_info: bool | BaseException = False) -> None:
        """As ``Logger.error``."""
        self._log(logging.ERROR, text, arguments, exc_info)

    def exception(self, text: str, *arguments: Any) -> None:
        """As ``Logger.exception``."""
        self._log(logging.ERROR, text, arguments, True)

    def _log(self, level: int, text: str, arguments: tuple[Any, ...], exc_info: bool | BaseException = False) -> None:
        try:
            self._logger.log(level, text, *arguments, exc_info=exc_info or None, stacklevel=3)
        except BaseException as failure:
            error = exc_info if isinstance(exc_info, BaseException) else failure.__context__ if exc_info else None
            with contextlib.suppress(BaseException):
                _write_plainly(level, text, arguments, error, failure)


def _write_plainly(
    level: int, text: str, arguments: tuple[Any, ...], error: BaseException | None, failure: BaseException
) -> None:
    """Write a record without ``logging``, and why; an exception that cannot be shown is named by its class."""
    lines = [f"{logging.getLevelName(level)} {text % arguments} (logging failed: {type(failure).__name__})"]
    if error is not None:
        lines.append(f"{type(error).__module__}.{type(error).__qualname__}")
        with contextlib.suppress(BaseException):
            lines += [line.rstrip("\n") for line in traceback.format_tb(error.__traceback__)[-20:]]
    stream = sys.__stderr__
    if stream is not None and not stream.closed:
        stream.write("\n".join(lines) + "\n")
        stream.flush()
