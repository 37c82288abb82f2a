"""What goes wrong by a client's own doing."""


class ClientError(Exception):
    """The client is told *code*, and nothing else happens."""

    def __init__(self, code):
        super().__init__(code)
        self.code = code
