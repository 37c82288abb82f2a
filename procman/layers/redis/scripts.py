"""The Lua scripts that Redis runs, one atomic script per operation, put together from ``lua/``.

A line in each script names the parts that stand there (``--# base queues``); what is before that line is the way of
most calls, kept free of everything that they do not need. All keys are below ``KEYS[1]``, the
site's prefix; ``keys.py`` lists them. Scripts are stored in the server when a connection is made, and called by digest.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files

# Redis 7: a script is refused as a whole when the server is out of memory, instead of being stopped half-way.
_STRICT, _DRAINING = "#!lua\n", "#!lua flags=allow-oom\n"
_DRAINS = frozenset(
    {"abandon", "excuse", "take", "finish", "defer", "receive", "hello", "keep", "serve", "flush", "group_discard"}
)
_NAMES = (
    *("abandon", "batch", "defer", "excuse", "finish", "flush"),
    *("group_add", "group_channels", "group_count", "group_discard", "group_send"),
    *("hello", "keep", "once", "part", "receive", "send", "serve", "statistics", "take"),
)
_PARTS = ("base", "queues", "inbox", "groups", "lost")


@dataclass(frozen=True, slots=True)
class Script:
    """The text of a script and the digest by which it is called."""

    name: str
    text: str
    digest: str


def load(server_version: tuple[int, ...]) -> dict[str, Script]:
    """All scripts by name, as a server of *server_version* takes them."""
    has_flags = server_version >= (7,)
    found = _loaded.get(has_flags)
    if found is None:
        found = _loaded[has_flags] = {name: _build(name, has_flags) for name in _NAMES}
    return found


def _build(name: str, has_flags: bool) -> Script:
    before, mark, rest = ("\n" + _read(name)).partition("\n--# ")
    named, _, body = rest.partition("\n")
    if not mark or not set(named.split()) <= set(_PARTS):
        raise ValueError(f"lua/{name}.lua needs a line of '--#' and its parts, of {', '.join(_PARTS)}")
    text = before.lstrip("\n") + "\n" + "".join(_read(part) for part in named.split()) + body
    if has_flags:
        text = (_DRAINING if name in _DRAINS else _STRICT) + text
    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def _read(name: str) -> str:
    return (files("procman.layers.redis") / "lua" / f"{name}.lua").read_text()


_loaded: dict[bool, dict[str, Script]] = {}
