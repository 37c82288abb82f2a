"""Where the processes of one project meet: address URLs, the private directory, the socket's name.

``ipc://<directory>/<hash of the settings file's real path>.sock``, so that everything that runs with the same settings
finds the same hub. The directory belongs to the user alone. No environment variable moves it: a shell, cron and a
supervisor with different environments must agree. ``PROCMAN_LAYER`` names another address altogether.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import stat
import sys
from pathlib import Path
from typing import NamedTuple

from procman.errors import ConfigurationError
from procman.settings import ENV_LAYER

# Unix socket paths end at 108 bytes (Linux) or 104 (macOS), with their final zero; temporary names need a few.
_MAX_PATH_BYTES = 100
_TEMPORARY = "/tmp"
SCHEMES = ("ipc", "memory", "redis", "rediss", "unix")


class Address(NamedTuple):
    """A parsed address URL; ``path`` is the socket's path for ``ipc``, what follows ``//`` for the rest."""

    scheme: str
    path: str


def parse(url: str) -> Address:
    """The parts of *url*; a bare path counts as ``ipc://path``.

    Raises:
        ConfigurationError: unknown scheme, or an ``ipc`` path that is not absolute or too long for a socket.
    """
    if not isinstance(url, str) or "\0" in url:
        raise ConfigurationError(f"the layer's address is {url!r}; write a text such as ipc:///path/to.sock")
    scheme, separator, rest = url.partition("://")
    if not separator and url.startswith("/"):
        scheme, rest = "ipc", url
    if scheme not in SCHEMES:
        raise ConfigurationError(
            f"layer address {url!r} is not understood: write ipc:///path/to.sock, memory:// or redis://host:port/0"
        )
    if scheme == "ipc":
        _check_path(rest, url)
    return Address(scheme, rest)


def _check_path(path: str, url: str) -> None:
    if not path.startswith("/"):
        raise ConfigurationError(f"layer address {url!r} needs an absolute path: write ipc:///path/to.sock")
    size = len(os.fsencode(path))
    if size > _MAX_PATH_BYTES:
        raise ConfigurationError(
            f"the layer's socket path has {size} bytes, and Unix sockets take {_MAX_PATH_BYTES}: {path}; "
            f"set {ENV_LAYER}=ipc:///shorter/path.sock"
        )


def private_directory() -> Path:
    """The directory of this user's sockets: ``/run/user/<uid>`` where it is the user's, else ``/tmp/procman-<uid>``.

    Made with mode 0700 where it is missing.

    Raises:
        ConfigurationError: what stands at its place is no directory of this user that others cannot enter.
    """
    uid = os.getuid()
    runtime = Path(f"/run/user/{uid}")
    if _is_own_directory(runtime, uid):
        return _make_private(runtime / "procman", uid)
    return _make_private(Path(_TEMPORARY) / f"procman-{uid}", uid)


def _is_own_directory(path: Path, uid: int) -> bool:
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == uid


def _make_private(path: Path, uid: int) -> Path:
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise ConfigurationError(f"cannot make the directory {path} of the layer's socket: {error.strerror}") from error
    found = path.lstat()  # not stat(): somebody else's symlink must not lead elsewhere
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != uid:
        raise ConfigurationError(
            f"{path} is not a directory of user {uid}, so the layer's socket would not be safe in it: "
            f"have it removed, or set {ENV_LAYER}=ipc:///another/path.sock"
        )
    if stat.S_IMODE(found.st_mode) & 0o077:
        path.chmod(0o700)
    return path


def project_address(settings_file: Path | str) -> str:
    """The address of the project whose settings module is *settings_file*. Raises ConfigurationError."""
    digest = hashlib.sha256(os.fsencode(os.path.realpath(settings_file))).hexdigest()[:16]
    return f"ipc://{private_directory() / (digest + '.sock')}"


def control_path(address: str) -> str:
    """The path of the supervisor's control socket that belongs to the layer at *address* (``ipc``)."""
    return str(Path(parse(address).path).with_suffix(".control"))


def default_address() -> str:
    """``PROCMAN_LAYER``, else the address of the settings module that ``DJANGO_SETTINGS_MODULE`` names.

    Raises:
        ConfigurationError: neither is set, or that module cannot be found.
    """
    chosen = os.environ.get(ENV_LAYER)
    if chosen:
        return chosen
    module = os.environ.get("DJANGO_SETTINGS_MODULE")
    if not module:
        raise ConfigurationError(
            f"the channel layer has no address: set DJANGO_SETTINGS_MODULE, {ENV_LAYER} or the layer's 'address'"
        )
    return project_address(_settings_file(module))


def _settings_file(module: str) -> str:
    loaded = getattr(sys.modules.get(module), "__file__", None)
    if loaded:
        return str(loaded)
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError) as error:
        raise ConfigurationError(f"cannot find the settings module {module!r}: {error}") from error
    if spec is None or not spec.origin:
        raise ConfigurationError(f"cannot find the settings module {module!r}: is the project on sys.path?")
    return spec.origin
