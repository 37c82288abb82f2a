"""Starts, watches, restarts and stops the processes of a site, and prints one merged log.

Not on the path of a message. Starts programs by their argument lists, so it imports nothing of what it runs.
"""

from procman.supervision.engine import Supervisor

__all__ = ["Supervisor"]
