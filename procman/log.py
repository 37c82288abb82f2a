"""Logging set-up for procman's own processes.

The supervisor prefixes every line with the process's name, so a record is one line of level and text, without a
time (platforms add their own). Users' Django logging stays theirs: this configures the ``procman`` logger only.
"""

import logging
import sys

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


def setup_logging(verbosity: int = 1) -> None:
    """Send the ``procman`` loggers to stderr. *verbosity* 0: warnings only, 1: information, 2: debug."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLineFormatter("%(message)s"))
    logger = logging.getLogger("procman")
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel({0: logging.WARNING, 1: logging.INFO}.get(verbosity, logging.DEBUG))
