import asyncio
import os
import socket
import tempfile
import threading
import xmlrpc.client
from collections.abc import Iterator
from pathlib import Path

import pytest

import procman
from procman.supervision import control
from procman.supervision.errors import ControlFault, NotRunning
from procman.supervision.listeners import listen_unix
from procman.supervision.rpc import MAX_REQUEST, ControlServer, process_struct
from procman.supervision.states import ProcessInfo, State

RUNNING = ProcessInfo("worker.1", "worker", 4711, State.RUNNING, 3723.0, 100.0, 0.0, 0, None)
BACKOFF = ProcessInfo("worker.2", "worker", None, State.BACKOFF, 0.0, 100.0, 110.0, 3, -9)


class Formation:
    stopping = False

    def processes(self) -> list[ProcessInfo]:
        return [RUNNING, BACKOFF]

    def is_stopping(self) -> bool:
        return self.stopping


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
    assert b"405" in exchange(path, b"GET / HTTP/1.1\r\n\r\n")
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
            xmlrpc.client.loads(server.answer(body))


def test_the_socket_is_the_users_alone(path: str) -> None:
    assert Path(path).stat().st_mode & 0o777 == 0o600


def test_nobody_at_the_socket_is_not_running(tmp_path: Path) -> None:
    with pytest.raises(NotRunning, match="start it with channels-run"):
        control.status(str(tmp_path / "none"))
