"""The echo as Channels 4 consumers, synchronous and asynchronous."""

from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from channels.routing import ProtocolTypeRouter
from django.core.asgi import get_asgi_application

http = get_asgi_application()


class Echo(WebsocketConsumer):
    """A synchronous consumer: its methods run in a thread."""

    def receive(self, text_data=None, bytes_data=None):
        self.send(text_data=text_data)


class AsyncEcho(AsyncWebsocketConsumer):
    """An asynchronous consumer."""

    async def receive(self, text_data=None, bytes_data=None):
        await self.send(text_data=text_data)


sync = ProtocolTypeRouter({"http": http, "websocket": Echo.as_asgi()})
asynchronous = ProtocolTypeRouter({"http": http, "websocket": AsyncEcho.as_asgi()})
