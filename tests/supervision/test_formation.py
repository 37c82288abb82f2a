import pytest

from procman.errors import ConfigurationError
from procman.supervision.formation import ProcessType, build_formation


def test_copies_are_numbered_and_a_single_process_is_named_like_its_type() -> None:
    types = [ProcessType("layer", ["hub"], single=True), ProcessType("worker", ["work"], count=3)]
    assert [spec.name for spec in build_formation(types)] == ["layer", "worker.1", "worker.2", "worker.3"]


def test_a_process_carries_what_its_type_says() -> None:
    kind = ProcessType(
        "web", ["serve", "--fd", "3"], env={"A": "1"}, pass_fds=(3,), stop_phase=2, stops_by_lifetime=True
    )
    (spec,) = build_formation([kind])
    assert (spec.name, spec.type, spec.argv) == ("web.1", "web", ("serve", "--fd", "3"))
    assert (spec.kind.env, spec.pass_fds, spec.kind.stop_phase, spec.kind.stops_by_lifetime) == (
        {"A": "1"},
        (3,),
        2,
        True,
    )


def test_each_copy_is_given_its_own_listeners_behind_what_all_have() -> None:
    kind = ProcessType("web", ["serve", "-v"], count=2, pass_fds=(9,), listeners=((3, 4), (5,)))
    first, second = build_formation([kind])
    assert (first.argv, first.pass_fds) == (("serve", "-v", "--fd", "3", "--fd", "4"), (9, 3, 4))
    assert (second.argv, second.pass_fds) == (("serve", "-v", "--fd", "5"), (9, 5))


def test_a_type_may_have_no_process() -> None:
    assert build_formation([ProcessType("worker", ["work"], count=0)]) == []


@pytest.mark.parametrize(
    ("types", "text"),
    [
        ([ProcessType("a", ["x"]), ProcessType("a", ["y"])], "given twice"),
        ([ProcessType("a", [])], "no command"),
        ([ProcessType("a", ["x"], count=-1)], "-1 processes"),
        ([ProcessType("a", ["x"], count=2, single=True)], "2 processes"),
        ([ProcessType("a", ["x"], count=2, listeners=((3,),))], "listeners for 1 processes"),
    ],
)
def test_what_makes_no_sense_is_refused(types: list[ProcessType], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        build_formation(types)
