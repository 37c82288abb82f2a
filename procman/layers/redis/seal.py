"""What bodies and sessions go through on their way to Redis and back: nothing, or ``crypto.Cipher``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from procman.layers import codec
from procman.layers.redis.crypto import Cipher

# The disconnect of a socket whose interface has died is made by a script, which has no keys: it is not encrypted.
_MADE_BY_SCRIPT, _ITS_CHANNEL = "gone:", "websocket.disconnect"


class Seal:
    """``close`` on the way to Redis, ``open`` on the way back; bound to the site by its *prefix*.

    Raises ConfigurationError for keys that are none.
    """

    def __init__(self, keys: Sequence[str | bytes] | None, prefix: str) -> None:
        self._cipher = None if keys is None else Cipher(keys)
        self._context = prefix.encode()

    def close(self, plain: bytes) -> bytes:
        """*plain* as it may be stored."""
        return plain if self._cipher is None else self._cipher.encrypt(plain, self._context)

    def open(self, stored: bytes) -> bytes:
        """What was closed. Raises UnreadableMessage."""
        return stored if self._cipher is None else self._cipher.decrypt(stored, self._context)

    def close_session(self, session: bytes | None) -> bytes | None:
        """The same for a session, if there is one."""
        return None if session is None else self.close(session)

    def open_session(self, stored: bytes | None) -> bytes | None:
        """The same for a stored session."""
        return None if stored is None else self.open(stored)

    def open_message(self, stored: bytes, id_: str, channel: str) -> dict[str, Any]:
        """The message in the body *stored* of entry *id_*. Raises UnreadableMessage, ValueError."""
        is_clear = channel == _ITS_CHANNEL and id_.startswith(_MADE_BY_SCRIPT)
        return codec.decode(stored if is_clear else self.open(stored))
