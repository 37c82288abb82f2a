"""What the control socket can be asked: supervisor's XML-RPC methods (version 3.0) and a few of our own.

Decides nothing about processes: it translates names, faults and structures between ``rpc.py``, which has the socket,
and the ``Formation``. Method names are looked up in one table, never resolved on an object. Source: the interface of
supervisor 4.3, ``supervisor.rpcinterface``.
"""

from __future__ import annotations

import inspect
import os
import re
import signal
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import procman
from procman.clock import SystemClock
from procman.errors import ConfigurationError
from procman.supervision.logring import LogRing
from procman.supervision.states import ProcessInfo, State

API_VERSION = "3.0"
IDENTIFICATION = "procman"
# Numbers of supervisor.xmlrpc.Faults.
UNKNOWN_METHOD, INCORRECT_PARAMETERS, BAD_NAME, BAD_SIGNAL, NO_FILE, FAILED = 1, 2, 10, 11, 20, 30
ABNORMAL_TERMINATION, ALREADY_STARTED, NOT_RUNNING, SUCCESS = 40, 60, 70, 80
FAILED_ONCE = "FAILED"  # of a process that runs once and has ended with another status than 0
KEPT = "KEPT"  # of a process that a restart has left alone, as its successor, or another one's, did not start
_LAST_SECOND = 2**31 - 1  # XML-RPC integers have 32 bits
_RUNS = frozenset({State.STARTING, State.RUNNING, State.BACKOFF})
_HAS_PROCESS = frozenset({State.STARTING, State.RUNNING, State.STOPPING})
# Colors, and characters that XML 1.0 cannot hold.
_NO_XML = re.compile("\x1b\\[[0-9;:]*m|[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NO_INPUT = "processes have no standard input: it is /dev/null"
_FIXED = "process types are those of the command line; scale changes how many there are"

_clock = SystemClock()


class Formation(Protocol):
    """What the control socket asks of the supervisor."""

    ring: LogRing

    def processes(self) -> list[ProcessInfo]:
        """Every process of the formation, in its order."""

    def is_stopping(self) -> bool:
        """Whether a stop has begun."""

    def names_of(self, word: str) -> list[str]:
        """The processes that *word* names: one, all of a type, ``type:name``, ``type:*`` or ``all``; maybe none."""

    def start(self, names: Sequence[str]) -> None:
        """Start those that are down."""

    def stop(self, names: Sequence[str]) -> None:
        """Stop these, until they are started."""

    def restart(self, names: Sequence[str]) -> list[str]:
        """Restart these one after the other; the names in their order, with what these are forked from."""

    def is_restarting(self, name: str) -> bool:
        """Whether a restart has yet to come to *name*, or to end with it."""

    def scale(self, kind: str, count: int) -> list[str]:
        """Have *count* processes of type *kind*; the names of those that come or go. Raises ConfigurationError."""

    def reload(self, files: Sequence[str]) -> None:
        """The code has changed in *files*: start anew what runs it. Raises ConfigurationError."""

    def signal(self, names: Sequence[str], signum: int) -> None:
        """Send *signum* to the processes *names*."""

    def shutdown(self) -> None:
        """Stop everything."""

    async def wait_until(self, predicate: Callable[[], bool]) -> bool:
        """Whether *predicate* came true before everything stopped."""


class Fault(Exception):
    """An answer that is an error: supervisor's fault number and text."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code, self.text = code, text


def _seconds(value: float) -> int:
    return min(int(value), _LAST_SECOND)


def process_struct(info: ProcessInfo, now: float) -> dict[str, Any]:
    """*info* as supervisor's ``getProcessInfo`` gives it; *now* is wall-clock seconds."""
    if info.state is State.RUNNING:
        hours, rest = divmod(int(info.uptime), 3600)
        description = f"pid {info.pid}, uptime {hours}:{rest // 60:02d}:{rest % 60:02d}"
    elif info.exit_status is not None and info.pid is None:
        description = f"exit status {info.exit_status}"
    else:
        description = ""
    return {
        "name": info.name,
        "group": info.type,
        "start": _seconds(info.started),
        "stop": _seconds(info.ended),
        "now": _seconds(now),
        "state": info.state.value,
        "statename": info.state.name,
        "spawnerr": "",
        "exitstatus": info.exit_status or 0,
        "logfile": "",
        "stdout_logfile": "",
        "stderr_logfile": "",
        "pid": info.pid or 0,
        "description": description,
    }


def to_xml_text(data: bytes) -> str:
    """*data* as text that XML can hold, without colors."""
    return _NO_XML.sub("", data.decode(errors="replace"))


def parse_signal(value: Any) -> int:
    """The number of a signal given as ``HUP``, ``SIGHUP`` or ``1``. Raises Fault."""
    text = str(value).upper()
    try:
        if text.isdigit():
            return int(signal.Signals(int(text)))
        return int(signal.Signals[text if text.startswith("SIG") else f"SIG{text}"])
    except (ValueError, KeyError):
        raise Fault(BAD_SIGNAL, f"BAD_SIGNAL: {value}") from None


class Methods:
    """The table of methods, about *formation*; *path* is the socket's."""

    def __init__(self, path: str, formation: Formation) -> None:
        self._path, self._formation = path, formation
        table: dict[str, Callable[..., Any]] = {
            "getAPIVersion": lambda: API_VERSION,
            "getVersion": lambda: API_VERSION,
            "getSupervisorVersion": lambda: procman.__version__,
            "getIdentification": lambda: IDENTIFICATION,
            "getState": self._state,
            "getPID": os.getpid,
            "getAllProcessInfo": self._all_process_info,
            "getProcessInfo": lambda name: process_struct(self._find(name), _clock.wall()),
            "getAllConfigInfo": self._all_config_info,
            "startProcess": self._start_process,
            "startProcessGroup": lambda name, wait=True: self._several(self._start_process, f"{name}:*", wait),
            "startAllProcesses": lambda wait=True: self._several(self._start_process, "all", wait),
            "stopProcess": self._stop_process,
            "stopProcessGroup": lambda name, wait=True: self._several(self._stop_process, f"{name}:*", wait),
            "stopAllProcesses": lambda wait=True: self._several(self._stop_process, "all", wait),
            "signalProcess": self._signal_process,
            "signalProcessGroup": lambda name, signum: self._several(self._signal_process, f"{name}:*", signum),
            "signalAllProcesses": lambda signum: self._several(self._signal_process, "all", signum),
            "readProcessStdoutLog": self._read_log,
            "readProcessStderrLog": self._read_log,
            "tailProcessStdoutLog": self._tail_log,
            "tailProcessStderrLog": self._tail_log,
            "readLog": lambda offset, length: self._read(None, offset, length),
            "readMainLog": lambda offset, length: self._read(None, offset, length),
            "clearLog": lambda: self._clear(None),
            "clearProcessLogs": lambda name: self._clear(self._find(name).name),
            "clearAllProcessLogs": lambda: self._several(self._clear_one, "all"),
            "reloadConfig": lambda: [[[], [], []]],
            "addProcessGroup": lambda name: self._refuse(_FIXED),
            "removeProcessGroup": lambda name: self._refuse(_FIXED),
            "sendProcessStdin": lambda name, chars: self._refuse(_NO_INPUT, NO_FILE),
            "sendRemoteCommEvent": lambda kind, data: True,
            "restart": lambda: self._refuse("it cannot be loaded again: stop it and start channels-run again"),
            "shutdown": self._shutdown,
        }
        self._table: dict[str, Callable[..., Any]] = {f"supervisor.{name}": each for name, each in table.items()}
        self._table |= {
            "procman.status": self.status,
            "procman.start": self._start,
            "procman.stop": self._stop,
            "procman.restart": self._restart,
            "procman.scale": self._scale,
            "procman.reload": self._reload,
            "system.listMethods": lambda: sorted(self._table),
            "system.multicall": self._multicall,
        }

    async def call(self, name: str, parameters: Sequence[Any]) -> Any:
        """What method *name* gives for *parameters*.

        Raises:
            Fault: there is no such method, the parameters do not fit, or it refuses.
        """
        method = self._table.get(name)
        if method is None:
            raise Fault(UNKNOWN_METHOD, f"UNKNOWN_METHOD: {name}")
        try:
            inspect.signature(method).bind(*parameters)
        except TypeError:
            raise Fault(INCORRECT_PARAMETERS, f"INCORRECT_PARAMETERS: {name}") from None
        try:
            result = method(*parameters)
            return await result if inspect.isawaitable(result) else result
        except (TypeError, ValueError, AttributeError):
            raise Fault(INCORRECT_PARAMETERS, f"INCORRECT_PARAMETERS: {name}") from None

    def status(self) -> dict[str, Any]:
        """The structure that ``status --json`` prints."""
        return {"control": self._path, "processes": [info.to_dict() for info in self._formation.processes()]}

    # -- looking ------------------------------------------------------------------------------------------------------

    def _state(self) -> dict[str, Any]:
        if self._formation.is_stopping():
            return {"statecode": -1, "statename": "SHUTDOWN"}
        return {"statecode": 1, "statename": "RUNNING"}

    def _infos(self) -> dict[str, ProcessInfo]:
        return {info.name: info for info in self._formation.processes()}

    def _all_process_info(self) -> list[dict[str, Any]]:
        return [process_struct(info, _clock.wall()) for info in self._formation.processes()]

    def _all_config_info(self) -> list[dict[str, Any]]:
        return [
            {"name": info.name, "group": info.type, "inuse": True, "autostart": True, "process_prio": 999,
             "group_prio": 999}
            for info in self._formation.processes()
        ]  # fmt: skip

    def _find(self, word: str) -> ProcessInfo:
        infos = self._infos()
        names = [name for name in self._formation.names_of(word) if word in (name, f"{infos[name].type}:{name}")]
        if len(names) != 1:
            raise Fault(BAD_NAME, f"BAD_NAME: {word}")
        return infos[names[0]]

    def _names(self, words: Sequence[str]) -> list[str]:
        found: dict[str, None] = {}
        for word in words or ["all"]:
            names = self._formation.names_of(word)
            if not names:
                known = ", ".join(dict.fromkeys(each.type for each in self._formation.processes()))
                raise Fault(BAD_NAME, f"there is no process or type {word!r}; there are {known}")
            found |= dict.fromkeys(names)
        return list(found)

    # -- supervisor's -------------------------------------------------------------------------------------------------

    async def _start_process(self, word: str, wait: bool = True) -> bool:
        info = self._find(word)
        if info.state in (State.STARTING, State.RUNNING):
            raise Fault(ALREADY_STARTED, f"ALREADY_STARTED: {word}")
        self._formation.start([info.name])
        if wait and not await self._is_up(info.name):
            raise Fault(ABNORMAL_TERMINATION, f"ABNORMAL_TERMINATION: {word}")
        return True

    async def _is_up(self, name: str) -> bool:
        """Whether *name* came up; False once it is down, or backs off."""
        await self._formation.wait_until(lambda: self._state_of(name) not in (State.STARTING, State.STOPPING))
        return self._state_of(name) is State.RUNNING

    def _state_of(self, name: str) -> State:
        info = self._infos().get(name)
        return info.state if info is not None else State.STOPPED

    async def _stop_process(self, word: str, wait: bool = True) -> bool:
        info = self._find(word)
        if info.state not in _RUNS:
            raise Fault(NOT_RUNNING, f"NOT_RUNNING: {word}")
        self._formation.stop([info.name])
        if wait:
            await self._formation.wait_until(lambda: self._state_of(info.name) is not State.STOPPING)
        return True

    def _signal_process(self, word: str, value: Any) -> bool:
        signum, info = parse_signal(value), self._find(word)
        if info.state not in _HAS_PROCESS:
            raise Fault(NOT_RUNNING, f"NOT_RUNNING: {word}")
        self._formation.signal([info.name], signum)
        return True

    async def _several(self, method: Callable[..., Any], word: str, *arguments: Any) -> list[dict[str, Any]]:
        """A result for each process that *word* names; those that *method* does not apply to are left out."""
        names = self._formation.names_of(word)
        if not names and word != "all":
            raise Fault(BAD_NAME, f"BAD_NAME: {word.removesuffix(':*')}")
        infos, results = self._infos(), []
        for name in names:
            result = {"name": name, "group": infos[name].type, "status": SUCCESS, "description": "OK"}
            try:
                value = method(name, *arguments)
                if inspect.isawaitable(value):
                    await value
            except Fault as fault:
                if fault.code in (ALREADY_STARTED, NOT_RUNNING):
                    continue
                result |= {"status": fault.code, "description": fault.text}
            results.append(result)
        return results

    def _read_log(self, word: str, offset: int, length: int) -> str:
        return self._read(self._find(word).name, offset, length)

    def _read(self, name: str | None, offset: int, length: int) -> str:
        data = self._formation.ring.content(name)
        if offset < 0:
            return to_xml_text(data[offset:])
        begin = max(0, offset - (self._formation.ring.end(name) - len(data)))
        return to_xml_text(data[begin : begin + length] if length else data[begin:])

    def _tail_log(self, word: str, offset: int, length: int) -> list[Any]:
        name = self._find(word).name
        data, end = self._formation.ring.content(name), self._formation.ring.end(name)
        wanted = data[max(0, len(data) - max(0, end - offset)) :][-length or len(data) :]
        return [to_xml_text(wanted), _seconds(end), end - offset > len(wanted)]

    def _clear(self, name: str | None) -> bool:
        self._formation.ring.clear(name)
        return True

    def _clear_one(self, name: str) -> bool:
        return self._clear(name)

    def _refuse(self, text: str, code: int = FAILED) -> None:
        raise Fault(code, f"{'NO_FILE' if code == NO_FILE else 'FAILED'}: {text}")

    def _shutdown(self) -> bool:
        self._formation.shutdown()
        return True

    async def _multicall(self, calls: Sequence[dict[str, Any]]) -> list[Any]:
        results: list[Any] = []
        for each in calls:
            try:
                name = str(each.get("methodName", ""))
                if name == "system.multicall":
                    raise Fault(INCORRECT_PARAMETERS, "INCORRECT_PARAMETERS: system.multicall in itself")
                results.append(await self.call(name, each.get("params", [])))
            except Fault as fault:
                results.append({"faultCode": fault.code, "faultString": fault.text})
        return results

    # -- ours ---------------------------------------------------------------------------------------------------------

    async def _start(self, *words: str) -> dict[str, str]:
        """Start *words*; the state of each process once it has one that lasts."""
        names = self._names(words)
        self._formation.start(names)
        for name in names:
            await self._is_up(name)
        return self._states(names)

    async def _stop(self, *words: str) -> dict[str, str]:
        names = self._names(words)
        self._formation.stop(names)
        await self._formation.wait_until(lambda: all(self._state_of(name) is not State.STOPPING for name in names))
        return self._states(names)

    async def _restart(self, *words: str) -> dict[str, str]:
        """Restart *words*; the state of each once the restart has come to all, ``KEPT`` where it was called off."""
        names = self._names(words)
        before = {name: info.pid for name, info in self._infos().items()}
        names = self._formation.restart(names)
        await self._formation.wait_until(lambda: not any(self._formation.is_restarting(name) for name in names))
        after = self._infos()
        kept = {name for name in names if name in after and after[name].pid and after[name].pid == before[name]}
        return self._states(names) | dict.fromkeys(kept, KEPT)

    async def _scale(self, kind: str, count: int) -> dict[str, str]:
        try:
            names = self._formation.scale(kind, count)
        except ConfigurationError as error:
            raise Fault(BAD_NAME, str(error)) from None
        for name in names:
            await self._is_up(name)
        return self._states(names)

    def _reload(self, files: Sequence[str]) -> bool:
        try:
            self._formation.reload([str(file) for file in files])
        except ConfigurationError as error:
            raise Fault(FAILED, str(error)) from None
        return True

    def _states(self, names: Sequence[str]) -> dict[str, str]:
        states = {name: self._state_of(name).name for name in names}
        for name, info in self._infos().items():
            if name in states and info.state is State.EXITED and info.exit_status:
                states[name] = FAILED_ONCE
        return states
