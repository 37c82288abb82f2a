"""Platforms that run a site, what they expect of it, and how they are recognised.

Pure: an environment and a look at the file system in, a ``Platform`` or None out. A preset only changes defaults: what
is given by a flag or a variable counts. Sources: each platform's documentation of how it stops a process, where its
router is and what it does with log lines.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from procman.errors import ConfigurationError

AUTO, NONE = "auto", "none"
# Heroku's Logplex cuts lines at 10,000 bytes; the name before each is not counted in this number.
_LOGPLEX_LINE = 9900
_DRAINING = "RAILWAY_DEPLOYMENT_DRAINING_SECONDS"
_SHOWN = {
    "bind": "listens on {}",
    "port": "port {} unless PORT is set",
    "shutdown_timeout": "stops within {:g} s",
    "startup_timeout": "gives up {:g} s after a start that fails",
    "forwarded_allow_ips": "believes forwarded headers of {}",
    "log_format": "log as {}",
    "log_max_line": "log lines of at most {} bytes",
}


@dataclass(frozen=True, slots=True)
class Platform:
    """One platform, recognised by one of ``variables`` (or a prefix of one, with * behind it) or of ``files``.

    ``defaults`` are those that differ, by the name of the setting; ``notes`` are for people. ``sets_variables``: its
    own configuration is the environment, so that no ``.env`` file is read; ``looks_for_env``: one that lies there is
    read unasked. ``reason`` is by what it was recognised.
    """

    name: str
    variables: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    defaults: Mapping[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    sets_variables: bool = False
    looks_for_env: bool = False
    reason: str = ""

    def recognise(self, environ: Mapping[str, str], exists: Callable[[str], bool]) -> str:
        """Why this process runs there; "" if it does not."""
        for variable in self.variables:
            prefix = variable.removesuffix("*")
            found = next((name for name in sorted(environ) if name.startswith(prefix)), None)
            if found == variable or (found and prefix != variable):
                return f"{found} is set"
        return next((f"{path} is there" for path in self.files if exists(path)), "")

    def describe(self) -> str:
        """A line for the log."""
        facts = [text.format(self.defaults[name]) for name, text in _SHOWN.items() if name in self.defaults]
        facts += [] if self.looks_for_env else [".env is not read"]
        shown = f": {', '.join(facts)}" if facts else ""
        return f"platform {self.name} ({self.reason}){shown}; --platform none switches this off"


def _routed(name: str, *variables: str, **options: object) -> Platform:
    """One whose router is the only way in, so that what it says of clients is believed."""
    notes = options.pop("notes", ())
    assert isinstance(notes, tuple)
    defaults = {"bind": "0.0.0.0", "forwarded_allow_ips": "*", **options}
    return Platform(name, variables, defaults=defaults, notes=notes, sets_variables=True)


# In this order: platforms run containers, some of them on Kubernetes.
PLATFORMS = (
    _routed("heroku", "DYNO", shutdown_timeout=25.0, startup_timeout=55.0, log_max_line=_LOGPLEX_LINE),
    _routed("render", "RENDER", port=10000, shutdown_timeout=25.0),
    _routed("fly", "FLY_APP_NAME", "FLY_ALLOC_ID", port=8080, shutdown_timeout=4.0, notes=(
        "fly: kill_timeout is 5 s unless fly.toml says more; then raise --shutdown-timeout, too",)),
    _routed("railway", "RAILWAY_*", shutdown_timeout=2.5, log_format="json", notes=(
        f"railway: a stop has 3 s unless {_DRAINING} says more",)),
    _routed("dokku", "DOKKU_*", port=5000, shutdown_timeout=25.0),
    Platform("kubernetes", ("KUBERNETES_SERVICE_HOST",), defaults={"bind": "0.0.0.0", "shutdown_timeout": 25.0}),
    Platform("systemd", ("NOTIFY_SOCKET", "LISTEN_FDS"), looks_for_env=True),
    Platform("docker", files=("/.dockerenv", "/run/.containerenv"),
             defaults={"bind": "0.0.0.0", "shutdown_timeout": 8.0}),
)  # fmt: skip
NAMES = tuple(platform.name for platform in PLATFORMS)


def find_platform(choice: str, environ: Mapping[str, str], exists: Callable[[str], bool]) -> Platform | None:
    """The platform that this process runs on; *choice* is ``auto``, ``none`` or a name.

    Raises:
        ConfigurationError: there is no platform of that name.
    """
    if choice not in (AUTO, NONE, *NAMES):
        raise ConfigurationError(f"there is no platform {choice!r}; there are {', '.join(NAMES)}, {AUTO} and {NONE}")
    for platform in PLATFORMS if choice != NONE else ():
        reason = platform.recognise(environ, exists) if choice == AUTO else f"--platform {choice}"
        if reason and choice in (AUTO, platform.name):
            return _with_budget(dataclasses.replace(platform, reason=reason), environ)
    return None


def _with_budget(platform: Platform, environ: Mapping[str, str]) -> Platform:
    """*platform* with the time for a stop that was configured there, where that can be known."""
    seconds = environ.get(_DRAINING, "")
    if platform.name != "railway" or not seconds.isdigit() or int(seconds) <= 3:
        return platform
    return dataclasses.replace(
        platform, defaults={**platform.defaults, "shutdown_timeout": int(seconds) - 1.0}, notes=()
    )
