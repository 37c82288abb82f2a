"""The interface's errors."""

from procman.errors import ProcmanError
from procman.interface.errors import InvalidReply, Refusal


def test_a_refusal_carries_what_the_client_is_answered():
    refusal = Refusal(503, "Busy.", retry_after=1)
    assert (refusal.status, str(refusal), refusal.retry_after) == (503, "Busy.", 1)


def test_every_error_is_one_of_procmans():
    assert all(issubclass(error, ProcmanError) for error in (Refusal, InvalidReply))
