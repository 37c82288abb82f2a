"""What the supervisor refuses or cannot do."""

from procman.errors import ConfigurationError, ProcmanError


class PortInUse(ConfigurationError):
    """Another program listens on the port: stop it or choose another port."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(f"port {port} on {host} is in use: stop the other program or choose another with --port")
        self.host, self.port = host, port


class AlreadyRunning(ConfigurationError):
    """Another supervisor holds the lock of this project's address: stop it, or use an address of your own."""

    def __init__(self, pid: int | None, address: str) -> None:
        who = f"pid {pid}" if pid else "pid unknown"
        super().__init__(
            f"channels-run is already running ({who}) for this project at {address}: "
            "stop it first, or use --layer ipc:///other/path.sock"
        )
        self.pid, self.address = pid, address


class NotRunning(ProcmanError):
    """No supervisor answers at the control socket: start one."""

    def __init__(self, path: str) -> None:
        super().__init__(f"not running: nothing answers at {path}; start it with channels-run")
        self.path = path


class ControlFault(ProcmanError):
    """The supervisor refused a request; ``code`` is a fault of supervisor's XML-RPC interface."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"the supervisor refused: {text}")
        self.code, self.text = code, text


class ProcfileError(ConfigurationError):
    """A line of a Procfile is wrong: correct it."""

    def __init__(self, name: str, line: int, text: str) -> None:
        super().__init__(f"{name} line {line}: {text}")
        self.name, self.line = name, line
