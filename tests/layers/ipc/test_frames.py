"""What the wire promises."""

from typing import Any

import pytest

from procman.layers.errors import ChannelFull, LayerError, MessageTooLarge, ProtocolMismatch, ReplyChannelGone
from procman.layers.ipc import frames

OPERATIONS = {name: value for name, value in vars(frames).items() if name.isupper() and isinstance(value, int)}


def test_no_two_operations_have_one_number() -> None:
    numbers = [value for name, value in OPERATIONS.items() if name not in ("VERSION", "ENVELOPE_BYTES", "READ_BYTES")]
    assert len(numbers) == len(set(numbers)) > 30


@pytest.mark.parametrize(
    ("code", "arguments", "expected"),
    [
        (frames.FULL, ["a", 5], ChannelFull),
        (frames.GONE, ["a!1"], ReplyChannelGone),
        (frames.TOO_LARGE, [5, 4], MessageTooLarge),
        ("unheard of", [], LayerError),
    ],
)
def test_errors_become_the_exceptions_of_the_contract(code: str, arguments: list[Any], expected: type) -> None:
    assert type(frames.build_error(code, arguments)) is expected


def test_a_welcome_tells_the_hub_and_whether_the_name_was_dead() -> None:
    assert frames.check_welcome([frames.WELCOME, frames.VERSION, "id", True, 7], "ipc:///x") == ("id", True, 7)


@pytest.mark.parametrize(
    "frame", [[frames.WELCOME, 99, "id", True], [frames.REFUSED, 99, "too old"], [], None, {"not": "a frame"}]
)
def test_other_answers_say_what_to_do(frame: Any) -> None:
    with pytest.raises(ProtocolMismatch, match="ipc:///x"):
        frames.check_welcome(frame, "ipc:///x")


@pytest.mark.parametrize(
    "frame", [[frames.WELCOME, 2, "hub", False], [frames.WELCOME, 99, "hub", False, 1, "more"], "no"]
)
def test_a_hub_of_another_version_is_named_with_what_to_do(frame: object) -> None:
    with pytest.raises(ProtocolMismatch, match=r"restart all of `channels-run`, and this process"):
        frames.check_welcome(frame, "ipc:///x")
