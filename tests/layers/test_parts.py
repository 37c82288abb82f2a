"""Parts of streams: each is written once, whichever hub brings it."""

from procman.layers.parts import Parts


def test_a_part_that_comes_again_while_it_is_written_is_answered_at_the_new_hub() -> None:
    parts = Parts()
    number = parts.arrived("k", 7)
    assert number is not None
    parts.hub_lost()
    assert parts.arrived("k", 3) is None
    assert parts.answer("k") is None
    assert parts.written(number, True) == 3


def test_a_part_that_comes_again_after_it_was_written_has_its_answer() -> None:
    parts = Parts()
    number = parts.arrived("k", 7)
    assert number is not None
    assert parts.written(number, False) == 7
    assert parts.arrived("k", 1) is None
    assert parts.answer("k") is False


def test_the_token_of_a_dead_hub_answers_nobody_at_the_next_one() -> None:
    parts = Parts()
    old = parts.arrived("old", 1)
    parts.hub_lost()
    new = parts.arrived("new", 1)
    assert old is not None and new is not None and old != new
    assert parts.written(old, False) is None
    assert parts.written(new, True) == 1


def test_a_number_is_answered_once_and_answers_are_forgotten_in_time() -> None:
    parts = Parts()
    for token in range(2000):
        number = parts.arrived(f"k{token}", token)
        assert number is not None
        assert parts.written(number, True) == token
        assert parts.written(number, True) is None
    assert parts.answer("k0") is None
    assert parts.answer("k1999") is True
