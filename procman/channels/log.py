"""Logging of the worker: logger ``django.channels``, as in 1.x. Django's own configuration of it wins."""

import logging

handler = logging.StreamHandler()


def setup_logger(name: str, verbosity: int = 1) -> logging.Logger:
    """The logger *name*, writing to stderr. *verbosity* 0: warnings only, 1: information, 2 and above: debug.

    A logger that the project's ``LOGGING`` gave handlers keeps them and its level.
    """
    logger = logging.getLogger(name)
    if any(known is not handler for known in logger.handlers):
        return logger
    if handler.formatter is None:
        handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logger.setLevel({0: logging.WARNING, 1: logging.INFO}.get(verbosity, logging.DEBUG))
    logger.propagate = False
    logger.handlers[:] = [handler]
    return logger
