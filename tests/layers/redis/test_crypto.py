"""Encryption of what is stored in Redis: rotation, tampering, and what is said without keys or library."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procman.errors import ConfigurationError
from procman.layers.redis.crypto import OVERHEAD, Cipher, UnreadableMessage

OLD, NEW = "the old key", "the new key"


@given(st.binary(max_size=200), st.binary(max_size=20))
def test_what_was_encrypted_is_decrypted(plain: bytes, context: bytes) -> None:
    stored = Cipher([OLD]).encrypt(plain, context)
    assert Cipher([OLD]).decrypt(stored, context) == plain
    assert len(stored) == len(plain) + OVERHEAD


def test_the_stored_value_shows_nothing_of_the_message_and_is_never_the_same() -> None:
    cipher = Cipher([OLD])
    stored = {cipher.encrypt(b"attack at dawn") for _ in range(100)}
    assert len(stored) == 100
    assert not any(b"dawn" in value for value in stored)


def test_a_key_is_rotated_without_losing_a_message() -> None:
    before, both, turned, after = Cipher([OLD]), Cipher([OLD, NEW]), Cipher([NEW, OLD]), Cipher([NEW])
    assert both.decrypt(before.encrypt(b"m")) == before.decrypt(both.encrypt(b"m")) == b"m"
    assert both.decrypt(turned.encrypt(b"m")) == turned.decrypt(both.encrypt(b"m")) == b"m"
    assert after.decrypt(turned.encrypt(b"m")) == turned.decrypt(after.encrypt(b"m")) == b"m"
    with pytest.raises(UnreadableMessage, match="not among symmetric_encryption_keys"):
        after.decrypt(before.encrypt(b"m"))


def test_any_change_of_a_stored_value_is_noticed() -> None:
    cipher = Cipher([OLD])
    stored = cipher.encrypt(b"pay 1 to me", b"bank")
    for place in range(len(stored)):
        changed = bytearray(stored)
        changed[place] ^= 1
        with pytest.raises(UnreadableMessage):
            cipher.decrypt(bytes(changed), b"bank")
    for size in range(len(stored)):
        with pytest.raises(UnreadableMessage):
            cipher.decrypt(stored[:size], b"bank")


def test_a_stored_value_cannot_be_passed_off_at_another_place() -> None:
    cipher = Cipher([OLD])
    with pytest.raises(UnreadableMessage, match="changed"):
        cipher.decrypt(cipher.encrypt(b"m", b"channel a"), b"channel b")


@given(st.binary(max_size=100))
def test_what_was_never_encrypted_is_refused(stored: bytes) -> None:
    with pytest.raises(UnreadableMessage):
        Cipher([OLD]).decrypt(stored)


@pytest.mark.parametrize("keys", ["one text", b"bytes", [], ["short"], [12345678], None, {"a": 1}])
def test_keys_that_are_no_list_of_secrets_are_refused_without_being_shown(keys: object) -> None:
    with pytest.raises(ConfigurationError, match="symmetric_encryption_keys must be") as refused:
        Cipher(keys)  # type: ignore[arg-type]
    assert "short" not in str(refused.value).replace("texts", "")


def test_without_the_library_the_error_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "cryptography.py").write_text("raise ImportError('not here')\n")
    code = """
from procman.errors import ConfigurationError
from procman.layers.redis.crypto import Cipher
try:
    Cipher(["some secret key"])
except ConfigurationError as error:
    print(error)
"""
    environ = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert "pip install 'procman[redis-encryption]'" in done.stdout
