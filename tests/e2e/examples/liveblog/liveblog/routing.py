"""Sockets by the slug in their path. Requests go to the views without a word here."""

from procman.channels import route

channel_routing = [
    route("websocket.connect", "liveblog.consumers.connect_blog", path=r"^/liveblog/(?P<slug>[^/]+)/stream/$"),
    route("websocket.disconnect", "liveblog.consumers.disconnect_blog", path=r"^/liveblog/(?P<slug>[^/]+)/stream/$"),
]
