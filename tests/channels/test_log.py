"""The logger django.channels: ours unless the project configured it."""

import logging

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
