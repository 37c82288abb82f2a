"""The text of a Procfile -> process types that run beside the site.

Pure. Grammar (the one of dokku's procfile-util): a line is ``name: command``, a comment or blank; anything else is an
error with its line number. What a Procfile cannot say stands in a comment above the line, which other tools skip::

    # procman: once before=worker
    migrate: python manage.py migrate
    # procman: depends=migrate ready-log="compiled"
    css: npm run watch

A line whose command is ``channels-run`` itself is left out, and so is ``release``, which platforms run by themselves.
"""

from __future__ import annotations

import re
import shlex
import shutil
import signal
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from procman.errors import ConfigurationError
from procman.settings import MAX_COUNT
from procman.supervision.actions import COMPLETED_SUCCESSFULLY, CONDITIONS, READY
from procman.supervision.errors import ProcfileError
from procman.supervision.formation import ProcessType

PORT_STEP = 100  # between two types, as foreman has it
READY_AFTER = 1.0  # seconds that a program has to live to count as started, as supervisor's startsecs
LONGEST_NAME = 63  # characters: platforms make host names of them
MAX_BYTES = 1024 * 1024
RESERVED = ("layer", "interface", "worker", "preloader", "reloader", "system", "all")

_LINE = re.compile(r"([A-Za-z0-9_-]+):[ \t]*(.*)")
_DIRECTIVE = re.compile(r"#[ \t]*procman:(.*)")
_MERGE_MARKER = re.compile(r"(<{7}|={7}|>{7}|\|{7})( |$)")
_THE_SITE = re.compile(r"(\S*/)?channels-run(\s+start\b|\s+-|\s*$)")
_A_ROLE = re.compile(r"(\S*/)?channels-run\s+(interface|worker|layer)\b")
_ASSIGNMENTS = re.compile(r"(?:[A-Za-z_][A-Za-z0-9_]*=[^\s'\"`$]*\s+)*")
_OPTIONS = ("once", "needed", "depends", "before", "ready-log", "ready-port", "stop-signal")
_FLAGS = ("once", "needed")


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of a Procfile, with what the comments above it say. ``depends`` are types, each with its condition."""

    name: str
    command: str
    line: int
    once: bool = False
    needed: bool = False
    depends: tuple[tuple[str, str], ...] = ()
    before: tuple[str, ...] = ()
    ready_log: str = ""
    ready_port: str = ""  # a number, or PORT for the one that it is given
    stop_signal: int = signal.SIGTERM


@dataclass(frozen=True, slots=True)
class Procfile:
    """What a file says. ``left_out`` are names of lines that are not run, each with the reason."""

    name: str
    entries: tuple[Entry, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)

    def describe(self) -> list[str]:
        """A line for the log; none without a file."""
        if not self.name:
            return []
        left = ", ".join(f"{name} ({reason})" for name, reason in self.left_out.items())
        runs = ", ".join(entry.name for entry in self.entries) or "nothing"
        return [f"{self.name}: runs {runs}" + (f"; leaves out {left}" if left else "")]


def parse_procfile(data: bytes, name: str, own: Collection[str] = ()) -> Procfile:
    """The lines of *data*, the content of the file *name*; *own* are types of the site that lines may depend on.

    Raises:
        ProcfileError: a line is wrong; it names the line and what to do.
    """
    entries: dict[str, Entry] = {}
    left_out: dict[str, str] = {}
    options: dict[str, Any] = {}
    seen: dict[str, int] = {}
    for number, line in enumerate(_lines(data, name), 1):

        def wrong(text: str, number: int = number) -> ProcfileError:
            return ProcfileError(name, number, text)

        if directive := _DIRECTIVE.fullmatch(line):
            options |= _parse_directive(directive[1], wrong)
        if not line or line.startswith("#"):
            continue
        kind, command = _split(line, wrong)
        if kind in seen:
            raise wrong(f"{kind!r} stands in line {seen[kind]} already: give this one another name")
        seen[kind] = number
        reason = _why_left_out(kind, command)
        if reason:
            left_out[kind] = reason
        elif kind in RESERVED:
            raise wrong(f"{kind!r} is a process of channels-run itself: give this line another name")
        else:
            entries[kind] = Entry(kind, command, number, **options)
        options = {}
    if options:
        raise ProcfileError(name, number, "a comment with options stands at the end: put it above the line it is for")
    found = Procfile(name, tuple(entries.values()), left_out)
    return _with_conditions(found, own)


def build_types(
    procfile: Procfile, counts: Mapping[str, int], base_port: int, phases: Mapping[str, int]
) -> list[ProcessType]:
    """The process types of *procfile*, in its order.

    *counts* are those that differ from 1; types with 0 are left out. Ports go up from *base_port*, the site's own.
    *phases* are those in which the site's own types stop: what one of them depends on stops after it.
    """
    ports = {entry.name: base_port + PORT_STEP * at for at, entry in enumerate(procfile.entries, 1)}
    named = {"PROCMAN_PORT_WEB": base_port} | {f"PROCMAN_PORT_{_variable(name)}": port for name, port in ports.items()}
    environ = {variable: str(port) for variable, port in named.items()}
    stops = _stop_phases(procfile.entries, phases)
    types = []
    for entry in procfile.entries:
        count = counts.get(entry.name, 1)
        if not count:
            continue
        announces = _A_ROLE.match(entry.command) is not None
        is_watched = bool(entry.ready_log or entry.ready_port)
        port = ports[entry.name]
        types.append(
            ProcessType(
                entry.name,
                shell_command(entry.command),
                count=count,
                env=environ,
                stop_phase=stops[entry.name],
                after=entry.depends,
                is_needed=entry.needed,
                is_optional=not entry.needed,
                runs_once=entry.once,
                ready_after=None if announces or is_watched else READY_AFTER,
                stop_signal=entry.stop_signal,
                signals_group=not announces,
                announces=announces,
                ready_log=entry.ready_log,
                ready_port=port if entry.ready_port == "PORT" else int(entry.ready_port or 0),
                port=port,
            )
        )
    return types


def conditions_for(procfile: Procfile, own: str) -> tuple[tuple[str, str], ...]:
    """What the site's type *own* comes after, by the lines that say ``before=``."""
    return tuple(
        (entry.name, COMPLETED_SUCCESSFULLY if entry.once else READY)
        for entry in procfile.entries
        if own in entry.before
    )


def shell_command(command: str, which: Callable[[str], str | None] = shutil.which) -> list[str]:
    """The words that run *command* in a shell, so that its end is the command's own.

    A single program takes the shell's place. Otherwise the shell waits for what it has started when it is told to stop,
    and does not begin with what comes next.
    """
    if not set(command) & set(";&|()`\n") and (start := _ASSIGNMENTS.match(command)):
        program = command[start.end() :].partition(" ")[0]
        if program and which(program):
            return ["/bin/sh", "-c", f"{start[0]}exec {command[start.end() :]}"]
    return ["/bin/sh", "-c", f"trap 'exit 143' TERM; trap 'exit 130' INT; {command}"]


def _lines(data: bytes, name: str) -> list[str]:
    if len(data) > MAX_BYTES:
        raise ProcfileError(name, 1, f"it is larger than {MAX_BYTES} bytes, which no Procfile is")
    lines = []
    # Not splitlines(): it also cuts at characters that a command may hold.
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        try:
            lines.append(line.decode().strip(" \t\r"))
        except UnicodeDecodeError:
            raise ProcfileError(name, number, "it is no UTF-8 text") from None
    return lines


def _split(line: str, wrong: Callable[[str], ProcfileError]) -> tuple[str, str]:
    if _MERGE_MARKER.match(line):
        raise wrong("it is a merge marker of a version control system: resolve the conflict")
    found = _LINE.fullmatch(line)
    if found is None:
        raise wrong(f"{shorten(line)} is no `name: command`; a name is made of letters, digits, - and _")
    kind, command = found.groups()
    if len(kind) > LONGEST_NAME:
        raise wrong(f"the name has {len(kind)} characters; at most {LONGEST_NAME} are allowed")
    if not command:
        raise wrong(f"{kind!r} has no command")
    if "\0" in command:
        raise wrong("it holds a NUL byte")
    return kind, command


def shorten(text: str) -> str:
    """*text* quoted, its middle left out if it is long."""
    return repr(text if len(text) <= 60 else f"{text[:40]}...{text[-15:]}")


def _why_left_out(kind: str, command: str) -> str:
    if kind == "release":
        return "platforms run it before a release"
    role = _A_ROLE.match(command)
    if _THE_SITE.match(command) or (role is not None and role[2] == kind):
        return "it is this site itself"
    return ""


def _parse_directive(text: str, wrong: Callable[[str], ProcfileError]) -> dict[str, Any]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise wrong(f"the options cannot be read: {error}") from None
    options: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if name not in _OPTIONS:
            raise wrong(f"there is no option {name!r}; there are {', '.join(_OPTIONS)}")
        if bool(equals) == (name in _FLAGS) or (equals and not value):
            raise wrong(f"write {name!r} alone" if name in _FLAGS else f"{name} needs a value, as {name}=...")
        options[name.replace("-", "_")] = _parse_option(name, value, wrong)
    return options


def _parse_option(name: str, value: str, wrong: Callable[[str], ProcfileError]) -> Any:
    if name in _FLAGS:
        return True
    if name == "depends":
        return tuple(_parse_dependency(each, wrong) for each in value.split(","))
    if name == "before":
        return tuple(value.split(","))
    if name == "stop-signal":
        number = getattr(signal, f"SIG{value.upper().removeprefix('SIG')}", None)
        if not isinstance(number, signal.Signals):
            raise wrong(f"there is no signal {value!r}; write TERM, INT, QUIT, HUP, USR1 or another")
        return int(number)
    if name == "ready-log":
        try:
            re.compile(value.encode())
        except re.error as error:
            raise wrong(f"ready-log is no regular expression: {error}") from None
    elif value != "PORT" and not (value.isdigit() and 0 < int(value) < 65536):
        raise wrong(f"ready-port is {value!r}; write a number from 1 to 65535, or PORT")
    return value


def _parse_dependency(text: str, wrong: Callable[[str], ProcfileError]) -> tuple[str, str]:
    name, colon, condition = text.partition(":")
    if colon and condition not in CONDITIONS:
        raise wrong(f"there is no condition {condition!r}; there are {', '.join(CONDITIONS)}")
    return name, condition


def _with_conditions(procfile: Procfile, own: Collection[str]) -> Procfile:
    """*procfile* with a condition for each dependency, and all names known."""
    entries = {entry.name: entry for entry in procfile.entries}
    done = []
    for entry in entries.values():
        depends = []
        for name, condition in entry.depends:
            other = entries.get(name)
            if other is None and name not in own:
                known = ", ".join([*entries, *own])
                raise ProcfileError(procfile.name, entry.line, f"it depends on {name!r}; there are {known}")
            runs_once = other is not None and other.once
            if condition.startswith("completed") and not runs_once:
                text = f"it waits for the end of {name!r}, which is not marked `once` and runs for ever"
                raise ProcfileError(procfile.name, entry.line, text)
            depends.append((name, condition or (COMPLETED_SUCCESSFULLY if runs_once else READY)))
        for name in entry.before:
            if name not in own:
                text = f"before={name}: only {', '.join(own)} can come after a line; elsewhere write depends="
                raise ProcfileError(procfile.name, entry.line, text)
        if set(entry.before) and any(name in own for name, _ in entry.depends):
            text = "it depends on a process of the site and says before= at once: both may wait for each other"
            raise ProcfileError(procfile.name, entry.line, text)
        fields = {name: getattr(entry, name) for name in entry.__slots__}
        done.append(Entry(**fields | {"depends": tuple(depends)}))
    _check_for_circles(procfile.name, done)
    return Procfile(procfile.name, tuple(done), procfile.left_out)


def _check_for_circles(name: str, entries: Iterable[Entry]) -> None:
    by_name = {entry.name: entry for entry in entries}
    finished: set[str] = set()

    def visit(entry: Entry, trail: Sequence[str]) -> None:
        if entry.name in trail:
            circle = " -> ".join([*trail[trail.index(entry.name) :], entry.name])
            raise ProcfileError(name, entry.line, f"these depend on each other: {circle}")
        if entry.name not in finished:
            for other, _ in entry.depends:
                if other in by_name:
                    visit(by_name[other], [*trail, entry.name])
            finished.add(entry.name)

    for entry in by_name.values():
        visit(entry, ())


def _stop_phases(entries: Sequence[Entry], own: Mapping[str, int]) -> dict[str, int]:
    """When each line's processes stop: after those that need them, else with the first."""
    needed_by: dict[str, list[str]] = {entry.name: [] for entry in entries}
    for entry in entries:
        for name, condition in entry.depends:
            if name in needed_by and condition == READY:
                needed_by[name].append(entry.name)
    before = {entry.name: entry.before for entry in entries}

    def phase(name: str) -> int:
        later = [own[each] for each in before[name] if each in own] + [phase(each) for each in needed_by[name]]
        return max(later, default=-1) + 1

    return {entry.name: phase(entry.name) for entry in entries}


def _variable(name: str) -> str:
    return name.upper().replace("-", "_")


def parse_counts(text: str, known: Collection[str] | None = None) -> dict[str, int]:
    """``worker=4,css=0`` as numbers by type; *known* None: any type.

    Raises:
        ConfigurationError: it is not written so, or there is no such type.
    """
    counts = {}
    for part in filter(None, (each.strip() for each in text.split(","))):
        name, equals, number = part.partition("=")
        if not equals or not number.isdecimal() or int(number) > MAX_COUNT:
            wrong = f"--count {part!r} is no type=number, such as css=2; the number is 0 to {MAX_COUNT}"
            raise ConfigurationError(wrong)
        if known is not None and name not in known:
            raise ConfigurationError(
                f"--count {part!r}: there is no process type {name!r}; there are {', '.join(known)}"
            )
        counts[name] = int(number)
    return counts
