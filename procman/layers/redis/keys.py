"""Names of the keys in Redis, and the check of the prefix that all of them share.

Pure. All keys of a site begin with ``{prefix}:``, one hash tag, so that a script may touch several of them. Values are
made and read by the scripts in ``lua/``; entries and tails also by ``entries.py``:

    q:QUEUE        list of entries, oldest first; a queue is a channel, or ``prefix!`` for process-local ones
    b:QUEUE        list of at most a few elements, the bell: blocked clients wait for one
    queues         set of the queues that hold something
    later          sorted set, entry -> moment at which it goes (back) to its queue, ms
    w:CLIENT       hash, id -> entry that this worker process has in flight
    labels         hash, client -> name of that process, for the log
    x:CLIENT       there when it is about to end on purpose: what it has in flight was not tried
    lost:CLIENT    set of the ids that were taken from it when its lease ran out, for an hour
    slot:RUN.NAME  the client that is that process of that supervisor; its successor takes over
    leases         sorted set, ``w:CLIENT`` or ``i:INTERFACE`` -> end of its lease, in time in which Redis answered
    clock          hash: ``last`` moment of keeping, ``lost`` ms in which Redis did not answer
    n:CLIENT       number of the last command of that client that was applied
    r:CLIENT       entry that its last receive was answered with, for a minute
    i:INTERFACE    stream of notices for that interface, in order
    ie:INTERFACE   list of notices for an interface that has not said hello to this Redis yet
    o:INTERFACE    hash, number -> reply channel of what it offers; empty once it has ended (od: of a dead one)
    so: sn: ss:    hashes of an interface: reply channel -> path, order, session of each accepted socket
    t:ID           the disconnect that follows when that offer of a dead interface has ended
    dead, dying    sorted sets of interfaces that were given up; those whose disconnects are still being queued
    once:KEY       that a send of a finish on another server was applied
    parts:INTERFACE, a:KEY   parts of responses whose senders wait, and the answer for one
    groups, gi:GROUP, G:INTERFACE:GROUP, ig:INTERFACE, sg:CHANNEL, g:GROUP    memberships, see ``lua/groups.lua``
    epoch, grace, early, reported    what happens while interfaces report to a server that has lost its data
    flushed        moment of the last flush; what was in flight then is not redelivered
    c:QUEUE, counted    counters

Each ends by itself, at the latest two weeks after its site has gone.
"""

from __future__ import annotations

import re

from procman.errors import ConfigurationError

PREFIX = "procman"
_PREFIX = re.compile(r"[A-Za-z0-9_.:\-]{1,64}")


def check_prefix(prefix: str) -> str:
    """*prefix* as the beginning of all keys.

    Raises:
        ConfigurationError: it is empty, too long or has a character that means something in a pattern of Redis.
    """
    if not isinstance(prefix, str) or not _PREFIX.fullmatch(prefix):
        raise ConfigurationError(
            f"the layer's prefix is {prefix!r}; write 1 to 64 letters, digits, '_', '.', ':' or '-', such as 'mysite'"
        )
    return "{" + prefix + "}:"
