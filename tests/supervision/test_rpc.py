import asyncio
import os
import socket
import tempfile
import threading
import xmlrpc.client
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import procman
from procman.errors import ConfigurationError
from procman.supervision import control
from procman.supervision.errors import ControlFault, NotRunning
from procman.supervision.listeners import listen_unix
from procman.supervision.logring import LogRing
from procman.supervision.methods import process_struct
from procman.supervision.rpc import MAX_REQUEST, ControlServer
from procman.supervision.states import ProcessInfo, State
from tests.support.waiting import wait_until

RUNNING = ProcessInfo("worker.1", "worker", 4711, State.RUNNING, 3723.0, 100.0, 0.0, 0, None)
BACKOFF = ProcessInfo("worker.2", "worker", None, State.BACKOFF, 0.0, 100.0, 110.0, 3, -9)


class Formation:
    """Two workers; what is asked of them is noted and changes nothing."""

    stopping = False
    loop: asyncio.AbstractEventLoop

    def __init__(self) -> None:
        self.ring = LogRing()
        self.asked: list[tuple[Any, ...]] = []

    def processes(self) -> list[ProcessInfo]:
        return [RUNNING, BACKOFF]

    def is_stopping(self) -> bool:
        return self.stopping

    def names_of(self, word: str) -> list[str]:
        names = [info.name for info in self.processes()]
        return names if word in ("all", "worker", "worker:*") else [n for n in names if word in (n, f"worker:{n}")]

    def start(self, names: Sequence[str]) -> None:
        self.asked.append(("start", *names))

    def stop(self, names: Sequence[str]) -> None:
        self.asked.append(("stop", *names))

    def restart(self, names: Sequence[str]) -> list[str]:
        self.asked.append(("restart", *names))
        return list(names)

    def is_restarting(self, name: str) -> bool:
        return False

    def scale(self, kind: str, count: int) -> list[str]:
        raise ConfigurationError(f"cannot scale {kind} to {count}")

    def signal(self, names: Sequence[str], signum: int) -> None:
        self.asked.append(("signal", signum, *names))

    def shutdown(self) -> None:
        self.asked.append(("shutdown",))

    async def wait_until(self, predicate: Callable[[], bool]) -> bool:
        return predicate()


@pytest.fixture
def formation() -> Formation:
    return Formation()


@pytest.fixture
def path(formation: Formation) -> Iterator[str]:
    """The control socket of a server that runs in a thread."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        server = ControlServer(f"{directory}/control", formation)
        started, ended = threading.Event(), threading.Event()

        async def serve() -> None:
            formation.loop = asyncio.get_running_loop()
            await server.start(listen_unix(server.path))
            started.set()
            await asyncio.get_running_loop().run_in_executor(None, ended.wait)
            server.close()

        thread = threading.Thread(target=asyncio.run, args=(serve(),))
        thread.start()
        assert started.wait(10)
        yield server.path
        ended.set()
        thread.join(10)


def test_versions_and_identity_are_what_supervisorctl_asks_first(path: str) -> None:
    assert control.call(path, "supervisor.getVersion") == control.call(path, "supervisor.getAPIVersion") == "3.0"
    assert control.call(path, "supervisor.getSupervisorVersion") == procman.__version__
    assert control.call(path, "supervisor.getIdentification") == "procman"
    assert control.call(path, "supervisor.getPID") == os.getpid()


def test_state_says_whether_a_stop_has_begun(path: str, formation: Formation) -> None:
    assert control.call(path, "supervisor.getState") == {"statecode": 1, "statename": "RUNNING"}
    formation.stopping = True
    assert control.call(path, "supervisor.getState") == {"statecode": -1, "statename": "SHUTDOWN"}


def test_process_structs_are_those_of_supervisor() -> None:
    assert process_struct(RUNNING, 2.0**40) == {
        "name": "worker.1", "group": "worker", "start": 100, "stop": 0, "now": 2**31 - 1, "state": 20,
        "statename": "RUNNING", "spawnerr": "", "exitstatus": 0, "logfile": "", "stdout_logfile": "",
        "stderr_logfile": "", "pid": 4711, "description": "pid 4711, uptime 1:02:03",
    }  # fmt: skip
    assert process_struct(BACKOFF, 0.0)["pid"] == 0


def test_processes_are_listed_and_found_by_name(path: str) -> None:
    assert [info["name"] for info in control.call(path, "supervisor.getAllProcessInfo")] == ["worker.1", "worker.2"]
    for name in ("worker.2", "worker:worker.2"):
        assert control.call(path, "supervisor.getProcessInfo", name)["statename"] == "BACKOFF"
    with pytest.raises(ControlFault) as fault:
        control.call(path, "supervisor.getProcessInfo", "nobody")
    assert fault.value.code == 10


def test_status_is_the_structure_of_status_json(path: str) -> None:
    assert control.status(path) == {"control": path, "processes": [RUNNING.to_dict(), BACKOFF.to_dict()]}


def test_methods_are_looked_up_in_a_table_only(path: str) -> None:
    names = control.call(path, "system.listMethods")
    assert "procman.status" in names
    for name in ("__class__", "supervisor.__init__", "supervisor._methods.clear", "status", "supervisor.supervisord.x"):
        with pytest.raises(ControlFault) as fault:
            control.call(path, name)
        assert fault.value.code == 1


def test_wrong_parameters_are_a_fault(path: str) -> None:
    with pytest.raises(ControlFault) as fault:
        control.call(path, "supervisor.getProcessInfo")
    assert fault.value.code == 2


def fault_of(path: str, method: str, *parameters: Any) -> int:
    with pytest.raises(ControlFault) as fault:
        control.call(path, method, *parameters)
    return fault.value.code


def test_what_is_asked_of_processes_reaches_them_by_name(path: str, formation: Formation) -> None:
    assert control.call(path, "supervisor.startProcess", "worker:worker.2", False) is True
    assert control.call(path, "supervisor.stopProcess", "worker.1", False) is True
    assert control.call(path, "supervisor.signalProcess", "worker.1", "hup") is True
    assert control.call(path, "supervisor.signalProcess", "worker.1", "15") is True
    assert control.call(path, "supervisor.shutdown") is True
    assert formation.asked == [
        ("start", "worker.2"), ("stop", "worker.1"), ("signal", 1, "worker.1"), ("signal", 15, "worker.1"),
        ("shutdown",),
    ]  # fmt: skip


def test_what_cannot_be_is_the_fault_that_supervisor_has_for_it(path: str, formation: Formation) -> None:
    assert fault_of(path, "supervisor.startProcess", "worker.1") == 60
    assert fault_of(path, "supervisor.startProcess", "nobody") == 10
    assert fault_of(path, "supervisor.startProcess", "worker:*") == 10  # for groups there is a method of their own
    assert fault_of(path, "supervisor.startProcess", "worker.2") == 40  # it stays down
    assert fault_of(path, "supervisor.signalProcess", "worker.1", "NONE") == 11
    assert fault_of(path, "supervisor.signalProcess", "worker.2", "HUP") == 70
    assert fault_of(path, "supervisor.stopProcessGroup", "nobody") == 10
    assert fault_of(path, "supervisor.sendProcessStdin", "worker.1", "x") == 20
    assert fault_of(path, "supervisor.restart") == 30
    assert fault_of(path, "procman.restart", "nobody") == 10
    assert fault_of(path, "procman.scale", "worker", -1) == 10


def test_groups_give_a_result_for_each_process_that_it_applies_to(path: str) -> None:
    results = control.call(path, "supervisor.signalProcessGroup", "worker", "HUP")
    assert [(each["name"], each["group"], each["status"]) for each in results] == [("worker.1", "worker", 80)]
    results = control.call(path, "supervisor.startAllProcesses")
    assert [(each["name"], each["status"]) for each in results] == [("worker.2", 40)]


def test_several_calls_in_one_and_the_first_fault_does_not_end_them(path: str) -> None:
    calls = [
        {"methodName": "supervisor.getPID", "params": []},
        {"methodName": "no"},
        {"methodName": "system.multicall"},
    ]
    pid, unknown, nested = control.call(path, "system.multicall", calls)
    assert (pid, unknown["faultCode"], nested["faultCode"]) == (os.getpid(), 1, 2)


def test_logs_are_read_by_offset_as_supervisor_does_and_hold_nothing_that_xml_cannot(
    path: str, formation: Formation
) -> None:
    formation.ring.add("worker.1", b"one\n\x1b[32mtwo\x1b[0m\x00\n\xff\n")
    assert control.call(path, "supervisor.readProcessStdoutLog", "worker.1", -5, 0).endswith("\n\ufffd\n")
    assert control.call(path, "supervisor.readLog", 0, 0) == "one\ntwo\n\ufffd\n"
    assert control.call(path, "supervisor.readProcessStdoutLog", "worker.1", 0, 4) == "one\n"
    assert control.call(path, "supervisor.tailProcessStdoutLog", "worker.1", 0, 4)[1:] == [20, True]
    assert control.call(path, "supervisor.clearProcessLogs", "worker.1") is True
    assert control.call(path, "supervisor.readProcessStdoutLog", "worker.1", 0, 0) == ""
    assert control.call(path, "supervisor.readProcessStdoutLog", "worker.2", 0, 0) == ""


def test_logs_are_followed_by_name_until_the_reader_leaves(path: str, formation: Formation) -> None:
    formation.ring.add("worker.1", b"before\n")
    recent, later = control.logs(path, ["worker"], follow=False)
    assert (recent, list(later)) == ([b"before\n"], [])
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        client.connect(path)
        client.sendall(b"GET /logtail/worker.1/stdout HTTP/1.1\r\n\r\n")
        seen = b""
        while b"before\n" not in seen:
            seen += client.recv(65536)
        wait_until(lambda: formation.ring._followers)
        for name in ("worker.2", "worker.1"):
            formation.loop.call_soon_threadsafe(formation.ring.add, name, f"of {name}\n".encode())
        while b"of worker.1\n" not in seen:
            seen += client.recv(65536)
        assert b"worker.2" not in seen
    wait_until(lambda: not formation.ring._followers)


def test_who_follows_and_does_not_read_is_cut_off(path: str, formation: Formation) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        client.sendall(b"GET /mainlogtail HTTP/1.1\r\n\r\n")
        wait_until(lambda: formation.ring._followers)

        def is_cut() -> bool:
            formation.loop.call_soon_threadsafe(formation.ring.add, "worker.1", b"x" * 65536)
            return not formation.ring._followers

        wait_until(is_cut)


def exchange(path: str, request: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        client.connect(path)
        client.sendall(request)
        answer = b""
        while chunk := client.recv(65536):
            answer += chunk
        return answer


def test_what_is_no_request_is_refused_and_the_server_goes_on(path: str) -> None:
    assert b"405" in exchange(path, b"PUT / HTTP/1.1\r\n\r\n")
    for target in (b"/", b"/logs?name=nobody", b"/logtail/nobody/stdout", b"/logtail", b"/logtail/a/b/c/d"):
        assert b"404" in exchange(path, b"GET %b HTTP/1.1\r\n\r\n" % target)
    assert b"413" in exchange(path, b"POST /RPC2 HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (MAX_REQUEST + 1))
    assert b"413" in exchange(path, b"POST /RPC2 HTTP/1.1\r\nContent-Length: -1\r\n\r\n")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        client.sendall(b"\xff\x00 half a request")
    assert control.call(path, "supervisor.getPID") == os.getpid()


def test_a_body_that_is_no_xml_is_a_fault(formation: Formation) -> None:
    server = ControlServer("/nowhere", formation)
    for body in (b"", b"\x00", b"<methodCall>", b"<a/>", b"<methodCall><methodName>x</methodName></methodCall>"):
        with pytest.raises(xmlrpc.client.Fault):
            xmlrpc.client.loads(asyncio.run(server.answer(body)))


def test_the_socket_is_the_users_alone(path: str) -> None:
    assert Path(path).stat().st_mode & 0o777 == 0o600


def test_nobody_at_the_socket_is_not_running(tmp_path: Path) -> None:
    with pytest.raises(NotRunning, match="start it with channels-run"):
        control.status(str(tmp_path / "none"))
