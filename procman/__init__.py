"""procman: real-time Django on one machine, in one command.

The way of a message, package by package::

    browser
      |  bytes
    procman.interface     sockets <-> messages          asyncio; never imports Django
      |  message
    procman.layers        where messages wait           memory | ipc (hub process) | redis
      |  message
    procman.channels      worker -> routing -> consumer synchronous Django
      |  message
    procman.layers        and back the same way
      |
    procman.interface
      |  bytes
    browser

    procman.supervision   starts, watches, restarts and stops the processes above
    procman.cli           the ``channels-run`` command

This module imports nothing, so that the version can be read where nothing else is installed.
"""

__version__ = "0.1.0"
