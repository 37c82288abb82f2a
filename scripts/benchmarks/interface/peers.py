"""WebSocket servers of other projects at their barest: ``peers.py websockets PORT``, and ``app`` for ASGI servers.

What a frame of ``send`` asks for is one message to every open socket.
"""

import asyncio
import sys
from typing import Any

PAYLOAD = "x" * 200


async def serve_websockets(port: int) -> None:
    """The ``websockets`` library: no compression, its own broadcast."""
    from websockets.asyncio.server import ServerConnection, broadcast, serve

    clients: set[ServerConnection] = set()

    async def handle(client: ServerConnection) -> None:
        clients.add(client)
        try:
            async for _ in client:
                broadcast(clients, PAYLOAD)
        finally:
            clients.discard(client)

    async with serve(handle, "127.0.0.1", port, compression=None, ping_interval=None):
        await asyncio.get_running_loop().create_future()


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """An ASGI application without a framework: accepts, and reads."""
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        pass


if __name__ == "__main__":
    import uvloop

    uvloop.run(serve_websockets(int(sys.argv[2])))
