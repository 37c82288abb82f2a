"""Logging set-up for procman's own processes.

The supervisor prefixes every line with the process's name, so a record is one line of level and text, without a
time (platforms add their own). Users' Django logging stays theirs: this configures the ``procman`` logger only.
"""

import json
import logging
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime

from procman.settings import ENV_LOG_FORMAT

# C0 and C1 controls and line separators: what could forge a log line or drive a terminal.
_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | {0x2028: "\\u2028", 0x2029: "\\u2029"}


def escape(text: str) -> str:
    """*text* of a client, safe to put into a log line: control characters are written as escapes."""
    return text.translate(_ESCAPES)


class OneLineFormatter(logging.Formatter):
    """``WARNING text`` for warnings and above, plain text for the rest."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if record.levelno <= logging.INFO else f"{record.levelname} {text}"


def stamp(at: float) -> str:
    """*at*, seconds since 1970, as ``2026-11-23T22:15:00.123Z``."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def to_json(record: object) -> str:
    """*record* on one line; only ASCII without control characters is in it."""
    return json.dumps(record, default=str).replace("\x7f", "\\u007f")


class JSONFormatter(logging.Formatter):
    """One JSON object per record: ``time``, ``level``, ``message`` and ``logger``, then what else it has.

    That is ``request_id``, ``exception`` (the traceback), and ``action`` with the facts of a line of the access log.
    """

    def format(self, record: logging.LogRecord) -> str:
        level = "error" if record.levelno >= logging.ERROR else record.levelname.lower()
        facts = {"time": stamp(record.created), "level": level, "message": record.getMessage(), "logger": record.name}
        action, details = getattr(record, "action", None), getattr(record, "details", None)
        if isinstance(action, str) and isinstance(details, Mapping):
            facts |= {"action": action} | {name: value for name, value in details.items() if name not in facts}
        request_id = getattr(record, "request_id", "-")
        if request_id != "-":
            facts["request_id"] = request_id
        if record.exc_info:
            facts["exception"] = self.formatException(record.exc_info)
        return to_json(facts)


def choose_formatter(text: logging.Formatter) -> logging.Formatter:
    """*text*, unless the environment asks for JSON."""
    return JSONFormatter() if os.environ.get(ENV_LOG_FORMAT) == "json" else text


def setup_logging(verbosity: int = 1) -> None:
    """Send the ``procman`` loggers to stderr. *verbosity* 0: warnings only, 1: information, 2: debug."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(choose_formatter(OneLineFormatter("%(message)s")))
    logger = logging.getLogger("procman")
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel({0: logging.WARNING, 1: logging.INFO}.get(verbosity, logging.DEBUG))
