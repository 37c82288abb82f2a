"""The channel layer of one machine: a hub process, and its clients over a Unix socket.

``IPCChannelLayer`` is what ``CHANNEL_LAYERS`` names; the asyncio client is ``ipc.aio.AsyncIPCLayer``, the process is
``ipc.server.run_hub``.
"""

from procman.layers.ipc.sync import IPCChannelLayer

__all__ = ["IPCChannelLayer"]
