"""The interface server: holds every HTTP and WebSocket connection and turns what they send into messages.

Knows nothing of Django, routing or consumers: messages go to the channel layer and replies come back from it.
"""

from procman.interface.server import InterfaceServer

__all__ = ["InterfaceServer"]
