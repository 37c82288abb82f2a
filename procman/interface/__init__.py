"""The interface server: holds every HTTP and WebSocket connection and turns what they send into messages.

Knows nothing of Django, routing or consumers: messages go to the channel layer and replies come back from it. The
class that does all this is ``server.InterfaceServer``; this package imports nothing, because its checks of settings are
needed by processes that serve nothing.
"""
