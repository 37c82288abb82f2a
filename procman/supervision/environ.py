"""The environment of the processes: files of variables (``.env``), and what a supervisor adds for its children.

Files are read with the rules of python-dotenv. A variable that is set already is never overridden, and its value counts
where the file refers to it.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path

from procman import lifetime
from procman.errors import ConfigurationError
from procman.settings import ENV_BEAT, ENV_LOG_FORMAT, SupervisorSettings
from procman.supervision import notify

DEFAULT = ".env"
MAX_BYTES = 1024 * 1024


def is_colored(environ: Mapping[str, str], is_terminal: bool) -> bool:
    """Whether lines have colors: on a terminal that knows them, or where FORCE_COLOR asks for it; NO_COLOR wins."""
    if environ.get("NO_COLOR") or environ.get("TERM") == "dumb":
        return False
    return is_terminal or environ.get("FORCE_COLOR", "0") not in ("", "0")


def children_environ(environ: Mapping[str, str], settings: SupervisorSettings, color: bool) -> dict[str, str]:
    """*environ* with what all children of a supervisor are told; *color*: whether their lines may have colors."""
    # Four signs of life within the time after which one is missed.
    beat = f"{min(lifetime.LONGEST_BEAT, settings.liveness_timeout / 4):g}"
    found = {**environ, "PYTHONUNBUFFERED": "1", ENV_BEAT: beat}
    # These are for the supervisor itself: a child that would speak for the site would be believed.
    for variable in notify.VARIABLES:
        found.pop(variable, None)
    if settings.log_format != "text":
        found[ENV_LOG_FORMAT] = "json"  # what the processes say is made into the format by the supervisor
    elif color:
        found |= {"FORCE_COLOR": "1", "CLICOLOR_FORCE": "1"}
    return found


def load_env_file(path: Path) -> None:
    """Set what *path* says in this process's environment.

    Raises:
        ConfigurationError: it cannot be read, or a line is wrong; it names the line.
    """
    from dotenv import load_dotenv
    from dotenv.parser import parse_stream

    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        text = data.decode()
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigurationError(f"{path} line {line}: it is no UTF-8 text") from None
    if len(data) > MAX_BYTES:
        raise ConfigurationError(f"{path} is larger than {MAX_BYTES} bytes, which no file of variables is")
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise ConfigurationError(f"{path} line {line}: it holds a NUL byte")
    text = text.removeprefix("\ufeff")
    for binding in parse_stream(io.StringIO(text)):
        if binding.error:
            original = binding.original
            line = original.line + original.string[: -len(original.string.lstrip()) or None].count("\n")
            raise ConfigurationError(f"{path} line {line}: write NAME=value; quotes must be closed, # begins a comment")
    before = dict(os.environ)
    load_dotenv(stream=io.StringIO(text), override=False)
    for name in os.environ.keys() - before.keys():
        if "\0" in os.environ[name]:
            raise ConfigurationError(f"{path}: the value of {name} holds a NUL byte")
