"""The name of 1.0 for ``procman.channels.test``."""

from procman.channels.test import *  # noqa: F403 - all that it exports, and nothing else
