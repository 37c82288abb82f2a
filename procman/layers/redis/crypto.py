"""Encrypts what is stored in Redis, so that whoever reads the server reads no message.

AES-256-GCM of the ``cryptography`` library: it also notices any change of what was stored. The keys are derived from
``symmetric_encryption_keys``: the first one encrypts, all of them decrypt. A key is changed without loss in three
deploys: the new one behind the old one, so that everybody can read it; then before it; then without the old one, once
what it encrypted has expired.

Hidden are bodies of messages and sessions. Names of channels and groups, sizes and times stay readable: Redis sorts by
them. What is bound to its place by *context* cannot be passed off elsewhere by somebody who can write to Redis.

A stored value: one byte version, four bytes that name the key, twelve bytes nonce, ciphertext with its tag.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING

from procman.errors import ConfigurationError
from procman.layers.errors import LayerError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_VERSION = b"\x01"
_NAME_SIZE, _NONCE_SIZE, _TAG_SIZE = 4, 12, 16
_HEAD_SIZE = len(_VERSION) + _NAME_SIZE + _NONCE_SIZE
# What encryption adds to each value, in bytes.
OVERHEAD = _HEAD_SIZE + _TAG_SIZE


class UnreadableMessage(LayerError):
    """A stored message cannot be decrypted: written with a key that is not among ``symmetric_encryption_keys``, without
    encryption, or changed since. It is dropped: give all processes the same keys.
    """


class Cipher:
    """Encrypts with the first of *keys*, decrypts with any. Safe to share between threads and over a fork."""

    def __init__(self, keys: Sequence[str | bytes]) -> None:
        """Raises ConfigurationError: *keys* is not a list of texts of 8 bytes or more, or the library is missing."""
        try:
            from cryptography.exceptions import InvalidTag
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError:
            raise ConfigurationError(
                "symmetric_encryption_keys needs the cryptography library: pip install 'procman[redis-encryption]'"
            ) from None
        self._changed = InvalidTag
        self._ciphers: dict[bytes, AESGCM] = {}
        for key in _check(keys):
            # Keys are secrets of any length, SECRET_KEY for example; the labels keep key and name apart.
            name = sha256(b"procman layer key name\0" + key).digest()[:_NAME_SIZE]
            self._ciphers.setdefault(name, AESGCM(sha256(b"procman layer key\0" + key).digest()))
        self._name = next(iter(self._ciphers))
        self._first = self._ciphers[self._name]

    def encrypt(self, plain: bytes, context: bytes = b"") -> bytes:
        """*plain* as it may be stored; *context* must be the same on ``decrypt``."""
        # Random nonces may repeat: at 8,000 messages a second the chance that any two of a year's are equal is one in
        # two million. Who sends more changes keys more often.
        nonce = os.urandom(_NONCE_SIZE)
        return _VERSION + self._name + nonce + self._first.encrypt(nonce, plain, context)

    def decrypt(self, stored: bytes, context: bytes = b"") -> bytes:
        """What ``encrypt`` was given.

        Raises:
            UnreadableMessage: none of the keys has made *stored*, or it is not whole.
        """
        if len(stored) < OVERHEAD or not stored.startswith(_VERSION):
            raise UnreadableMessage("a stored message is not encrypted: do all processes have the same keys?")
        cipher = self._ciphers.get(stored[1 : 1 + _NAME_SIZE])
        if cipher is None:
            raise UnreadableMessage(
                "a stored message was encrypted with a key that is not among symmetric_encryption_keys"
            )
        try:
            return cipher.decrypt(stored[1 + _NAME_SIZE : _HEAD_SIZE], stored[_HEAD_SIZE:], context)
        except self._changed:
            raise UnreadableMessage("a stored message has been changed since it was encrypted") from None


def _check(keys: Sequence[str | bytes]) -> list[bytes]:
    if isinstance(keys, str | bytes) or not isinstance(keys, Sequence) or not keys:
        raise ConfigurationError("symmetric_encryption_keys must be a list of texts: write [SECRET_KEY]")
    found = []
    for key in keys:
        data = key.encode() if isinstance(key, str) else key
        if not isinstance(data, bytes) or len(data) < 8:
            raise ConfigurationError("each of symmetric_encryption_keys must be a text of 8 bytes or more")
        found.append(data)
    return found
