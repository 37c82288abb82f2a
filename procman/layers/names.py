"""The grammar of channel and group names.

A name is shorter than 100 ASCII characters: letters, digits, ``-``, ``_`` and ``.``. A channel may then have one ``?``
(single-reader: one process reads it, known by its full name) or ``!`` (process-local: one process reads everything
below ``prefix!``) and more of the same characters. Groups have neither mark.

Pure. Raises TypeError as Channels 1.x did; who may send to what is not decided here.
"""

import functools
import random
import re
import string
from collections.abc import Iterable

MAX_LENGTH = 99
MAX_RECEIVED = 4096
NORMAL, SINGLE_READER, PROCESS_LOCAL = "normal", "single-reader", "process-local"

_GROUP = re.compile(r"[a-zA-Z0-9\-_.]+")
_CHANNEL = re.compile(r"[a-zA-Z0-9\-_.]+(?:[?!][a-zA-Z0-9\-_.]*)?")
_BODY = ".body?"
# Interfaces mark what they name for a WebSocket, below a name of theirs that no other has.
SOCKET_MARK = "ws-"
_SOCKET = re.compile(r"[a-zA-Z0-9\-_.]+\.[0-9a-f]{8}!ws-[0-9a-f]+")
_ALPHABET = string.ascii_letters + string.digits
_random = random.SystemRandom()


@functools.lru_cache(maxsize=4096)
def check_channel(name: str, receive: bool = False) -> None:
    """Accept *name*, to send to or (*receive*) to read from.

    Raises:
        TypeError: it breaks the grammar, ends in ``?``, or *receive* and a process-local name goes on after its ``!``.
    """
    if not isinstance(name, str) or len(name) > MAX_LENGTH or not _CHANNEL.fullmatch(name):
        raise TypeError(
            f"channel name {name!r} is not valid: it must be a str of fewer than 100 ASCII letters, digits, '-', '_', "
            "'.', with at most one '?' or '!'"
        )
    if name.endswith("?"):
        raise TypeError(f"channel name {name!r} must not end in '?': make one with new_channel({name!r})")
    if receive and "!" in name and not name.endswith("!"):
        raise TypeError(f"channel name {name!r} must end at its '!' to receive: {local_prefix(name)!r} reads them all")


def check_receive(names: Iterable[str]) -> list[str]:
    """*names* as a list, each fit to receive from. Raises TypeError; AssertionError for none at all, as 1.x did."""
    if isinstance(names, str):
        raise TypeError(f"receive takes a list of channel names: write [{names!r}]")
    checked = list(names)
    if len(checked) > MAX_RECEIVED:
        raise TypeError(f"receive takes at most {MAX_RECEIVED} channel names at once, not {len(checked)}")
    assert checked, "receive needs at least one channel name"
    for name in checked:
        check_channel(name, True)
    return [plain(name) for name in checked]


def plain(name: str) -> str:
    """*name* as a str and no kind of it, such as Django's SafeString."""
    return name if type(name) is str else str.__str__(name)


@functools.lru_cache(maxsize=4096)
def check_group(name: str) -> None:
    """Accept the group *name*. Raises TypeError."""
    if not isinstance(name, str) or len(name) > MAX_LENGTH or not _GROUP.fullmatch(name):
        raise TypeError(
            f"group name {name!r} is not valid: it must be a str of fewer than 100 ASCII letters, digits, '-', '_', '.'"
        )


def kind(name: str) -> str:
    """``NORMAL``, ``SINGLE_READER`` or ``PROCESS_LOCAL``, by the mark in *name*."""
    if "!" in name:
        return PROCESS_LOCAL
    return SINGLE_READER if "?" in name else NORMAL


def local_prefix(name: str) -> str:
    """*name* up to and including its ``!``; other names whole. Messages wait under this name."""
    mark = name.find("!")
    return name if mark < 0 else name[: mark + 1]


def family(name: str) -> str:
    """*name* up to and including its mark: one word for all the names that ``new_channel`` makes from a pattern."""
    return name.partition("?")[0] + "?" if "?" in name else local_prefix(name)


def build_channel(pattern: str) -> str:
    """A name made from *pattern*, which ends in ``?`` or ``!``, by 12 random characters (71 bits: never used before).

    Raises:
        TypeError: *pattern* has no mark at its end, or is too long.
    """
    if not isinstance(pattern, str) or pattern[-1:] not in ("?", "!"):
        raise TypeError(f"new_channel needs a pattern that ends in '?' or '!', not {pattern!r}")
    name = pattern + "".join(_random.choices(_ALPHABET, k=12))
    check_channel(name)
    return name


def is_socket(channel: str) -> bool:
    """Whether *channel* is the reply channel of a WebSocket of an interface server."""
    return "!ws-" in channel and _SOCKET.fullmatch(channel) is not None


def client_id(channel: str) -> str:
    """What an interface server tells the client behind *channel* from its others by: the name's end; "" has none."""
    return channel.partition("!")[2].removeprefix(SOCKET_MARK)


class NameRules:
    """The name checks as methods, where Channels 1.x had them: on the layer."""

    @staticmethod
    def valid_channel_name(name: str, receive: bool = False) -> bool:
        """True, or TypeError."""
        check_channel(name, receive)
        return True

    @staticmethod
    def valid_channel_names(names: Iterable[str], receive: bool = False) -> bool:
        """True, or TypeError; AssertionError for an empty list."""
        checked = list(names)
        assert checked, "at least one channel name is needed"
        for name in checked:
            check_channel(name, receive)
        return True

    @staticmethod
    def valid_group_name(name: str) -> bool:
        """True, or TypeError."""
        check_group(name)
        return True

    @staticmethod
    def non_local_name(name: str) -> str:
        """*name* up to and including its ``!``; other names whole."""
        return local_prefix(name)


def body_channel(reply_channel: str) -> str:
    """Where the body of the request behind *reply_channel* follows in chunks."""
    return reply_channel.replace("!", _BODY, 1)


def body_owner(channel: str) -> str:
    """The interface that sends chunks to *channel*, empty if it is no channel of a body."""
    owner, mark, _ = channel.partition(_BODY)
    return owner if mark else ""
