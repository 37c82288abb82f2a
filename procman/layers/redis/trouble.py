"""What an error of Redis means to the person who runs the site, in one line with the way out.

Pure. The texts hold no password: a server that is unknown or refuses is named by ``Host.hidden``.
"""

from __future__ import annotations

from procman.layers.redis.address import CERT_REQS_VARIABLE, Host
from procman.log import escape

_SILENT = "it does not answer: is it reachable from here?"

# The first whose words are all in the error's class and text (in lower case) says what to do. redis-py leaves out the
# code that begins an answer (WRONGPASS, READONLY) where it has a class for it.
_CAUSES: tuple[tuple[tuple[str, ...], str], ...] = (
    (("certificate verify failed", "self-signed"),
     f"its TLS certificate is self-signed: give ssl_ca_certs=/path/ca.pem in the address, or accept any with "
     f"?ssl_cert_reqs=none (or {CERT_REQS_VARIABLE}=none beside REDIS_URL)"),
    (("certificate verify failed", "hostname mismatch"),
     "its TLS certificate is for another host name: correct the host, or add ?ssl_check_hostname=false"),
    (("certificate verify failed", "ip address mismatch"),
     "its TLS certificate is for another address: name the host as the certificate does, or add "
     "?ssl_check_hostname=false"),
    (("certificate verify failed",),
     "its TLS certificate is not trusted: give ssl_ca_certs=/path/ca.pem in the address"),
    (("certificate required",), "it wants a certificate of the client: add ssl_certfile and ssl_keyfile"),
    (("wrong version number",), "it does not speak TLS at this port: write redis:// instead of rediss://"),
    (("record layer failure",), "it does not speak TLS at this port: write redis:// instead of rediss://"),
    (("authentication required",), "it wants a password: write redis://:password@host"),
    (("invalid username-password pair",),
     "it refuses the user name or password: correct the address; a user name made up by a platform is to be left out"),
    (("invalid password",), "it refuses the password: correct the address"),
    (("without any password configured",), "it has no password but the address does: leave the password out"),
    (("no password is set",), "it has no password but the address does: leave the password out"),
    (("no permission",), "the user may not do what the layer needs: give it ~{<prefix>}:* and +@all"),
    (("no master found",), "no Sentinel knows a master of that service that is up: check the service's name"),
    (("previous master is now",), "it is no longer the master: connecting to the new one"),
    (("readonlyerror",), "it is a replica that takes no writes: name the master, or use redis+sentinel://"),
    (("masterdownerror",), "it is a replica that has lost its master: name the master, or use redis+sentinel://"),
    (("misconf",), "it cannot save to disk and so refuses writes: free its disk, or switch its snapshots off"),
    (("command not allowed when used memory",), "its memory (maxmemory) is full: give it more, or find what fills it"),
    (("busyloadingerror",), "it is loading its data"),
    (("max number of clients",), "it has no connection left: raise maxclients, or run fewer processes"),
    (("db index is out of range",), "it does not have that database: use 0"),
    (("invalid database",), "it does not have that database: use 0"),
    (("movederror",), "it is part of a Redis Cluster, which the layer does not use: name single servers instead"),
    (("clusterdownerror",), "it is part of a Redis Cluster, which the layer does not use: name single servers instead"),
    (("unknown command",), "it is too old, or a command that the layer needs is renamed or switched off"),
    (("protocol error",), "it is not a Redis server, or it speaks TLS: write rediss:// instead of redis://"),
    (("connection closed by server",), "it closed the connection; if it never answers, it may speak TLS: write rediss://"),
    (("reset by peer",), "it closed the connection; if it never answers, it may speak TLS: write rediss://"),
    (("name or service not known",), "there is no host of that name: correct the address"),
    (("nodename nor servname",), "there is no host of that name: correct the address"),
    (("name resolution",), "its name could not be looked up: is the network up?"),
    (("no address associated",), "there is no address for that host name: correct the address"),
    (("connection refused",), "nothing listens there: is Redis running, and are host and port right?"),
    (("connect call failed",), "nothing listens there: is Redis running, and are host and port right?"),
    (("no such file",), "there is no socket at that path: is Redis running, with this unixsocket?"),
    (("permission denied",), "this user may not open that socket: see unixsocketperm"),
    (("timeout",), _SILENT),
    (("timed out",), _SILENT),
)  # fmt: skip


def explain(error: BaseException) -> str:
    """What *error* means and what to do, without a final stop; its own text where that is not known."""
    texts: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(texts) < 5:
        texts.append(f"{type(cause).__name__} {cause}")
        cause = cause.__cause__ or cause.__context__
    whole = " ".join(texts).lower()
    for words, meaning in _CAUSES:
        if all(word in whole for word in words):
            return meaning
    return escape(str(error)[:300]) or type(error).__name__


def describe(host: Host, error: BaseException) -> str:
    """``redis://host:6379/0: what is wrong and what to do``."""
    meaning = explain(error)
    if host.tls and meaning == _SILENT:
        # A plain server waits for the rest of what it takes for a command.
        meaning += " Or does it not speak TLS at this port? Then write redis:// instead of rediss://"
    return f"{host.hidden}: {meaning}"
