"""What can be wrong with a client's request or with a reply to it.

``InterfaceError``
    ``Refusal``: the interface answers the client itself, with a status
    ``InvalidReply``: the application's reply breaks the message format
"""

from procman.errors import ProcmanError


class InterfaceError(ProcmanError):
    """Root of the interface server's errors."""


class Refusal(InterfaceError):
    """The interface answers this request itself: send *text* with *status* and forget the request.

    *retry_after* is seconds; 0 leaves the header out. *reason* is for the log, not for the client; *limit* is the
    setting that the request was over, counted under that name.
    """

    def __init__(self, status: int, text: str, retry_after: int = 0, reason: str = "", limit: str = "") -> None:
        super().__init__(text)
        self.status, self.text, self.retry_after, self.reason = status, text, retry_after, reason
        self.limit = limit


class InvalidReply(InterfaceError):
    """A reply of the application breaks the message format of Channels 1.x: fix the consumer that sent it."""
