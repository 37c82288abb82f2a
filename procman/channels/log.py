"""Logging of the worker: logger ``django.channels``, as in 1.x. Django's own configuration of it wins."""

import logging
from typing import Any

from procman.log import OneLineFormatter

handler = logging.StreamHandler()


def setup_logger(name: str, verbosity: int = 1) -> logging.Logger:
    """The logger *name*, writing to stderr. *verbosity* 0: warnings only, 1: information, 2 and above: debug.

    A logger that the project's ``LOGGING`` gave handlers keeps them and its level.
    """
    logger = logging.getLogger(name)
    if any(known is not handler for known in logger.handlers):
        return logger
    if handler.formatter is None:
        handler.setFormatter(OneLineFormatter("%(message)s"))
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
        errors.setFormatter(OneLineFormatter("%(message)s"))
        logging.getLogger("django").addHandler(errors)
