import signal
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from procman.supervision import policy, states
from procman.supervision.actions import (
    Abort,
    Action,
    Announce,
    CloseLifetime,
    Forget,
    Kill,
    Log,
    Member,
    Quit,
    Rename,
    Spawn,
    Terminate,
)
from procman.supervision.policy import Policy
from procman.supervision.states import State

MEMBERS = (
    Member("layer", "layer", 2, True),
    Member("interface.1", "interface", 0),
    Member("worker.1", "worker", 1),
    Member("worker.2", "worker", 1),
)


class Machine:
    """A policy and the processes it believes in: carries actions out, as the engine does."""

    def __init__(
        self,
        members: Sequence[Member] = MEMBERS,
        startup: float = 60.0,
        shutdown: float = 10.0,
        liveness: float = 0.0,
    ) -> None:
        self.policy = Policy(members, startup, shutdown, liveness)
        self.now = 0.0
        self.pids: dict[str, int] = {}
        self.next_pid = 100
        self.done: list[Action] = []
        self.quit: int | None = None
        self.spawn_fails: set[str] = set()
        self.carry_out(self.policy.start(self.now))

    def carry_out(self, actions: list[Action]) -> list[Action]:
        queue = list(actions)
        carried = []
        while queue:
            action = queue.pop(0)
            carried.append(action)
            if isinstance(action, Spawn):
                assert action.name not in self.pids, "two processes in one slot"
                assert not self.policy.stopping, "a start after the stop began"
                if action.name in self.spawn_fails:
                    queue[:0] = self.policy.spawn_failed(action.name, "no memory", self.now)
                else:
                    self.next_pid += 1
                    self.pids[action.name] = self.next_pid
                    queue[:0] = self.policy.spawned(action.name, self.next_pid, self.now)
            elif isinstance(action, Rename):
                assert action.to not in self.pids, "two processes in one slot"
                if action.name in self.pids:
                    self.pids[action.to] = self.pids.pop(action.name)
            elif isinstance(action, Forget):
                assert action.name not in self.pids, "a process of no slot"
            elif isinstance(action, Quit):
                assert self.quit is None, "two ends"
                self.quit = action.status
        self.done += carried
        return carried

    def ready(self, *names: str) -> list[Action]:
        return [a for n in names for a in self.carry_out(self.policy.ready(n, self.pids[n], self.now))]

    def ready_all(self) -> list[Action]:
        return self.ready(*self.pids)

    def exit(self, name: str, status: int = -9) -> list[Action]:
        return self.carry_out(self.policy.exited(name, self.pids.pop(name), status, self.now))

    def advance(self, seconds: float) -> list[Action]:
        """Move the time, stopping at each moment that the policy waits for."""
        end = self.now + seconds
        carried: list[Action] = []
        for _ in range(10_000):
            moment = self.policy.deadline()
            if moment is None or moment > end:
                break
            self.now = max(self.now, moment)
            carried += self.carry_out(self.policy.tick(self.now))
        else:
            raise AssertionError("the policy waits for a moment that has passed, again and again")
        self.now = end
        return carried

    def state(self, name: str) -> State:
        return self.policy.slots[name].state


def logs(actions: list[Action]) -> str:
    return "\n".join(action.text for action in actions if isinstance(action, Log))


def test_everything_is_started_at_once_in_order() -> None:
    assert [a.name for a in Machine().done if isinstance(a, Spawn)] == [m.name for m in MEMBERS]


def test_it_announces_once_when_every_type_has_a_ready_process() -> None:
    machine = Machine()
    assert Announce() not in machine.ready("layer", "interface.1")
    assert Announce() in machine.ready("worker.2")
    machine.exit("worker.2")
    assert Announce() not in machine.ready("worker.1", "worker.2")


def test_a_death_after_ready_is_followed_by_a_start_at_once() -> None:
    machine = Machine()
    machine.ready_all()
    machine.now = 12.3
    actions = machine.exit("worker.1")
    assert Spawn("worker.1") in actions
    assert logs(actions) == "worker.1 (pid 103) was killed by SIGKILL after 12.3 s; restarting now"


def test_the_eleventh_restart_in_a_row_waits_and_the_budget_comes_back() -> None:
    machine = Machine()
    machine.ready_all()
    for _ in range(10):
        assert Spawn("worker.1") in machine.exit("worker.1")
        machine.ready("worker.1")
    assert Spawn("worker.1") not in machine.exit("worker.1")
    assert machine.state("worker.1") is State.BACKOFF
    assert Spawn("worker.1") in machine.advance(0.1)
    machine.ready("worker.1")
    machine.advance(10.0)
    assert Spawn("worker.1") in machine.exit("worker.1")


def test_time_spent_waiting_for_a_start_gives_no_restart_back() -> None:
    machine = Machine()
    machine.ready_all()
    pauses = 0
    for _ in range(20):
        pauses += Spawn("worker.1") not in machine.exit("worker.1")
        machine.advance(31.0 if "worker.1" not in machine.pids else 0.0)
        machine.ready("worker.1")
    assert pauses == 10


def test_deaths_before_ready_back_off_exponentially_up_to_the_cap() -> None:
    machine = Machine()
    machine.ready("layer", "interface.1", "worker.2")
    delays = []
    for _ in range(12):
        machine.exit("worker.1", 3)
        timer = machine.policy.slots["worker.1"].timer
        assert timer is not None
        delays.append(timer - machine.now)
        machine.now = timer
        machine.carry_out(machine.policy.tick(machine.now))
    expected = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30, 30, 30]
    assert [round(delay, 3) for delay in delays] == expected


def test_jitter_only_shortens_the_pause() -> None:
    shortest = Policy(MEMBERS, 60, 10, random=lambda: 0.999)
    shortest.start(0.0)
    shortest.spawned("worker.1", 1, 0.0)
    shortest.exited("worker.1", 1, 3, 0.0)
    timer = shortest.slots["worker.1"].timer
    assert timer is not None and 0.07 < timer < 0.08


def test_the_backoff_decays_with_the_time_that_a_process_runs() -> None:
    machine = Machine()
    machine.ready("layer", "interface.1", "worker.2")
    for _ in range(4):
        machine.exit("worker.1", 3)
        machine.advance(5.0)
    machine.ready("worker.1")
    machine.advance(25.0)
    machine.exit("worker.1", 3)
    assert machine.policy.slots["worker.1"].failures == 2


def test_a_death_by_a_foreign_sigterm_is_held_for_a_quarter_of_a_second() -> None:
    for signum in (signal.SIGTERM, signal.SIGINT):
        machine = Machine()
        machine.ready_all()
        assert Spawn("worker.1") not in machine.exit("worker.1", -signum)
        assert machine.policy.deadline() == policy.HOLD
        assert Spawn("worker.1") in machine.advance(policy.HOLD)


def test_a_stop_during_the_hold_starts_nothing() -> None:
    machine = Machine()
    machine.ready_all()
    machine.exit("worker.1", -signal.SIGTERM)
    machine.carry_out(machine.policy.stop(machine.now))
    assert machine.state("worker.1") is State.STOPPED
    assert not [a for a in machine.advance(20) if isinstance(a, Spawn)]


def test_five_early_deaths_of_a_type_that_never_ran_give_up() -> None:
    machine = Machine()
    machine.ready("layer", "worker.1", "worker.2")
    for _ in range(4):
        machine.exit("interface.1", 3)
        machine.advance(5.0)
    actions = machine.exit("interface.1", 3)
    assert "5 times in a row; giving up" in logs(actions)
    assert machine.policy.stopping and machine.policy.status == states.NEVER_READY
    assert machine.state("interface.1") is State.FATAL


def test_five_early_deaths_of_one_of_several_workers_do_not_give_up() -> None:
    machine = Machine()
    machine.ready("layer", "interface.1", "worker.2")
    for _ in range(20):
        machine.exit("worker.1", 3)
        machine.advance(30.0)
    assert not machine.policy.stopping


def test_a_program_that_cannot_be_spawned_gives_up() -> None:
    machine = Machine()
    machine.spawn_fails = {"interface.1"}
    machine.exit("interface.1", 3)
    machine.advance(10.0)
    assert machine.policy.status == states.NEVER_READY
    assert "could not be started: no memory" in logs(machine.done)


def test_a_process_that_is_not_ready_in_time_is_killed_and_a_type_that_is_not_gives_up() -> None:
    machine = Machine(startup=5.0)
    machine.ready("layer", "interface.1", "worker.2")
    actions = machine.advance(5.0)
    assert Kill("worker.1") in actions and not machine.policy.stopping
    machine = Machine(startup=5.0)
    machine.ready("layer", "interface.1")
    machine.advance(5.0)
    assert machine.policy.status == states.NEVER_READY


def test_a_type_that_stays_down_in_a_crash_loop_gives_up_after_a_minute() -> None:
    machine = Machine()
    machine.ready_all()
    machine.exit("interface.1", 1)
    while not machine.policy.stopping and machine.now < 100:
        if "interface.1" in machine.pids:
            machine.exit("interface.1", 1)
        machine.advance(0.5)
    assert 60 <= machine.now <= 61
    assert machine.policy.status == states.CRASH_LOOP


def test_processes_that_die_as_soon_as_they_are_ready_are_a_crash_loop_too() -> None:
    machine = Machine()
    machine.ready_all()
    while not machine.policy.stopping and machine.now < 300:
        for name in ("worker.1", "worker.2"):
            if name in machine.pids:
                machine.ready(name)
                machine.exit(name, 1)
        machine.advance(0.3)
    assert machine.policy.status == states.CRASH_LOOP
    assert "no worker has stayed up for" in logs(machine.done)


def test_a_worker_that_is_killed_now_and_then_is_no_crash_loop() -> None:
    machine = Machine()
    machine.ready_all()
    for seconds in (1.0, 2.0, 57.0, 5.0, 20.0, 60.0, 60.0):
        for name in ("worker.1", "worker.2"):
            machine.exit(name)
            machine.ready(name)
        machine.advance(seconds)
    assert not machine.policy.stopping


def test_one_death_with_a_slow_start_after_it_is_no_crash_loop() -> None:
    machine = Machine(startup=120.0)
    machine.ready_all()
    machine.exit("interface.1", 1)
    machine.advance(100.0)
    assert not machine.policy.stopping
    machine.ready("interface.1")
    assert machine.state("interface.1") is State.RUNNING


def test_a_stop_goes_interface_then_workers_then_layer() -> None:
    machine = Machine()
    machine.ready_all()
    assert [a for a in machine.carry_out(machine.policy.stop(0.0)) if not isinstance(a, Log)] == [
        Terminate("interface.1")
    ]
    actions = machine.exit("interface.1", 0)
    assert actions == [Terminate("worker.1"), Terminate("worker.2")]
    assert machine.exit("worker.1", 0) == []
    assert machine.exit("worker.2", 0) == [CloseLifetime("layer")]
    assert machine.exit("layer", 0) == [Log("INFO", "stopped"), Quit(0)]


def test_workers_are_asked_at_half_time_although_the_interface_still_drains() -> None:
    machine = Machine(shutdown=10.0)
    machine.ready_all()
    machine.carry_out(machine.policy.stop(0.0))
    assert machine.advance(4.9) == []
    assert machine.advance(0.1) == [Terminate("worker.1"), Terminate("worker.2")]


def test_what_does_not_stop_is_killed_in_the_last_second_and_the_layer_after_it() -> None:
    machine = Machine(shutdown=10.0)
    machine.ready_all()
    machine.carry_out(machine.policy.stop(0.0))
    kills = [a for a in machine.advance(9.0) if isinstance(a, Kill)]
    assert kills == [Kill("interface.1"), Kill("worker.1"), Kill("worker.2")]
    for name in ("interface.1", "worker.1", "worker.2"):
        machine.exit(name)
    assert CloseLifetime("layer") in machine.done
    assert Kill("layer") in machine.advance(0.5)
    machine.exit("layer")
    assert machine.quit == 0


def test_the_end_comes_at_the_deadline_even_if_nothing_dies() -> None:
    machine = Machine(shutdown=3.0)
    machine.ready_all()
    machine.carry_out(machine.policy.stop(0.0))
    machine.advance(3.0)
    assert machine.quit == 0
    assert "worker.1 (pid 103) cannot be killed" in logs(machine.done)


def test_force_kills_everything_now() -> None:
    machine = Machine()
    machine.ready_all()
    machine.carry_out(machine.policy.stop(0.0))
    kills = [a.name for a in machine.carry_out(machine.policy.force(0.1)) if isinstance(a, Kill)]
    assert sorted(kills) == sorted(machine.pids)
    for name in list(machine.pids):
        machine.exit(name)
    assert machine.quit == states.FORCED


def test_a_rolling_restart_waits_for_each_successor() -> None:
    machine = Machine()
    machine.ready_all()
    assert Terminate("worker.1") in machine.carry_out(machine.policy.restart(["worker.1", "worker.2"], 0.0))
    assert machine.exit("worker.1", 0) == [Spawn("worker.1")]
    assert machine.ready("worker.1") == [Terminate("worker.2")]
    machine.exit("worker.2", 0)
    assert machine.ready("worker.2") == []


def test_a_rolling_restart_is_called_off_when_a_successor_does_not_start() -> None:
    machine = Machine()
    machine.ready_all()
    machine.carry_out(machine.policy.restart(["worker.1", "worker.2"], 0.0))
    machine.exit("worker.1", 0)
    assert "called off" in logs(machine.exit("worker.1", 1))
    assert Terminate("worker.2") not in machine.advance(30.0)
    assert machine.state("worker.2") is State.RUNNING


def test_a_worker_that_does_not_stop_for_its_successor_is_killed() -> None:
    machine = Machine(shutdown=10.0)
    machine.ready_all()
    machine.carry_out(machine.policy.restart(["worker.1", "worker.2"], 0.0))
    assert Kill("worker.1") in machine.advance(10.0)
    actions = machine.exit("worker.1")
    assert Spawn("worker.1") in actions and "was killed by SIGKILL after 10.0 s instead of stopping" in logs(actions)


def test_a_rolling_restart_goes_on_with_the_next_when_one_died_before_its_turn() -> None:
    machine = Machine()
    machine.ready_all()
    machine.carry_out(machine.policy.restart(["worker.1", "worker.2"], 0.0))
    machine.exit("worker.2", -9)
    machine.exit("worker.1", 0)
    assert Terminate("worker.2") in machine.ready("worker.1")


def test_news_of_a_process_that_is_gone_changes_nothing() -> None:
    machine = Machine()
    old = machine.pids["worker.1"]
    machine.ready_all()
    machine.exit("worker.1")
    assert machine.policy.ready("worker.1", old, 0.0) == []
    assert machine.policy.exited("worker.1", old, 0, 0.0) == []
    assert machine.state("worker.1") is State.STARTING


BESIDE = (*MEMBERS[:2], *(member._replace(overlaps=True) for member in MEMBERS[2:]))


def overlapping() -> Machine:
    machine = Machine(BESIDE)
    machine.ready_all()
    return machine


def test_a_successor_is_ready_before_the_old_worker_is_asked_to_stop() -> None:
    machine = overlapping()
    old = machine.pids["worker.1"]
    actions = machine.carry_out(machine.policy.restart(["worker.1", "worker.2"], 0.0))
    assert actions[1:] == [Rename("worker.1", "worker.1~"), Spawn("worker.1")]
    assert (machine.state("worker.1~"), machine.pids["worker.1~"]) == (State.RUNNING, old)
    assert list(machine.policy.slots) == ["layer", "interface.1", "worker.1", "worker.1~", "worker.2"]
    assert machine.ready("worker.1") == [Terminate("worker.1~")]
    assert machine.policy.is_restarting("worker.1") and machine.policy.is_restarting("worker.2")
    assert machine.exit("worker.1~", 0) == [
        Forget("worker.1~"), Rename("worker.2", "worker.2~"), Spawn("worker.2")
    ]  # fmt: skip
    machine.ready("worker.2")
    assert machine.exit("worker.2~", 0) == [Forget("worker.2~")]
    assert not machine.policy.is_restarting("worker.2")


def test_a_successor_that_does_not_start_leaves_everything_as_it_was() -> None:
    machine = overlapping()
    before = dict(machine.pids)
    machine.carry_out(machine.policy.restart(["worker.1", "worker.2"], 0.0))
    actions = machine.exit("worker.1", 1)
    assert "exited with status 1" in logs(actions) and "the old one stays" in logs(actions)
    assert Rename("worker.1~", "worker.1") in actions
    assert machine.pids == before and not machine.policy.is_restarting("worker.2")
    assert machine.state("worker.1") is State.RUNNING
    assert Spawn("worker.1") in machine.exit("worker.1")  # it is a worker as any other


def test_a_successor_that_is_not_ready_in_time_is_killed_and_the_old_worker_stays() -> None:
    machine = overlapping()
    machine.carry_out(machine.policy.restart(["worker.1"], 0.0))
    assert Kill("worker.1") in machine.advance(60.0)
    assert Rename("worker.1~", "worker.1") in machine.exit("worker.1")


def test_an_old_worker_that_dies_while_its_successor_starts_is_succeeded_all_the_same() -> None:
    machine = overlapping()
    machine.carry_out(machine.policy.restart(["worker.1", "worker.2"], 0.0))
    assert Forget("worker.1~") in machine.exit("worker.1~", -9)
    assert Rename("worker.2", "worker.2~") in machine.ready("worker.1")


def test_a_stop_ends_old_workers_and_their_successors() -> None:
    machine = overlapping()
    machine.carry_out(machine.policy.restart(["worker.1"], 0.0))
    machine.carry_out(machine.policy.stop(0.0))
    asked = machine.exit("interface.1", 0)
    assert {a.name for a in asked if isinstance(a, Terminate)} == {"worker.1", "worker.1~", "worker.2"}


def test_what_is_stopped_on_request_stays_down_until_it_is_started() -> None:
    machine = Machine()
    machine.ready_all()
    assert machine.carry_out(machine.policy.stop_slots(["worker.1"], 0.0)) == [Terminate("worker.1")]
    assert machine.exit("worker.1", 0) == []
    assert machine.advance(300.0) == [] and machine.state("worker.1") is State.STOPPED
    assert machine.carry_out(machine.policy.start_slots(["worker.1"], machine.now)) == [Spawn("worker.1")]


def test_a_type_that_is_stopped_on_request_is_no_reason_to_give_up() -> None:
    machine = Machine()
    machine.ready("layer", "interface.1")
    machine.carry_out(machine.policy.stop_slots(["worker.1", "worker.2"], 0.0))
    machine.exit("worker.1", 0)
    machine.exit("worker.2", 0)
    machine.advance(1000.0)
    assert not machine.policy.stopping
    machine.carry_out(machine.policy.start_slots(["worker.1"], machine.now))
    machine.advance(59.0)
    assert not machine.policy.stopping
    machine.advance(2.0)
    assert machine.policy.status == states.NEVER_READY


def test_a_stop_on_request_that_is_not_obeyed_ends_in_a_kill() -> None:
    machine = Machine(shutdown=10.0)
    machine.ready_all()
    machine.carry_out(machine.policy.stop_slots(["worker.1"], 0.0))
    assert Kill("worker.1") in machine.advance(10.0)
    machine.exit("worker.1")
    assert machine.state("worker.1") is State.STOPPED


def test_a_start_during_a_stop_on_request_follows_it() -> None:
    machine = Machine()
    machine.ready_all()
    machine.carry_out(machine.policy.stop_slots(["worker.1"], 0.0))
    assert machine.carry_out(machine.policy.start_slots(["worker.1"], 0.0)) == []
    assert machine.exit("worker.1", 0) == [Spawn("worker.1")]


def test_a_start_on_request_waits_for_no_pause() -> None:
    machine = Machine()
    machine.ready("layer", "interface.1", "worker.2")
    for _ in range(4):
        machine.exit("worker.1", 3)
        machine.advance(30.0)
    machine.exit("worker.1", 3)
    assert machine.carry_out(machine.policy.start_slots(["worker.1"], machine.now)) == [Spawn("worker.1")]


def test_a_restart_of_what_was_stopped_on_request_starts_it() -> None:
    machine = Machine()
    machine.ready_all()
    machine.carry_out(machine.policy.stop_slots(["worker.1"], 0.0))
    machine.exit("worker.1", 0)
    assert Spawn("worker.1") in machine.carry_out(machine.policy.restart(["worker.1"], 0.0))


def test_a_formation_grows_and_shrinks_without_touching_the_others() -> None:
    machine = Machine()
    machine.ready_all()
    third = Member("worker.3", "worker", 1)
    assert machine.carry_out(machine.policy.add(third, 0.0)) == [Spawn("worker.3")]
    machine.ready("worker.3")
    assert machine.carry_out(machine.policy.remove("worker.3", 0.0)) == [Terminate("worker.3")]
    assert machine.exit("worker.3", 0) == [Forget("worker.3")]
    assert "worker.3" not in machine.policy.slots
    machine.exit("worker.2", 3)
    machine.exit("worker.2", 3)
    assert machine.state("worker.2") is State.BACKOFF
    assert machine.carry_out(machine.policy.remove("worker.2", 0.0)) == [Forget("worker.2")]


LOADER = Member("loader", "loader", overlaps=True, is_needed=False)
AFTER = (
    *MEMBERS[:2],
    LOADER,
    *(member._replace(after=(("loader", "ready"),), overlaps=True) for member in MEMBERS[2:]),
)


def test_what_comes_after_a_type_is_started_once_that_is_ready_and_then_for_itself() -> None:
    machine = Machine(AFTER)
    assert set(machine.pids) == {"layer", "interface.1", "loader"}
    assert machine.ready("loader")[-2:] == [Spawn("worker.1"), Spawn("worker.2")]
    machine.ready("layer", "interface.1", "worker.1", "worker.2")
    machine.exit("loader")
    assert Spawn("worker.1") in machine.exit("worker.1")


def test_the_time_to_be_ready_of_what_comes_after_a_type_begins_with_that_one() -> None:
    machine = Machine(AFTER, startup=10.0)
    machine.ready("layer", "interface.1")
    machine.advance(9.0)
    machine.ready("loader")
    machine.advance(9.0)
    assert not machine.policy.stopping
    machine.advance(2.0)
    assert machine.policy.status == states.NEVER_READY


def test_a_type_before_others_that_never_comes_up_is_the_end_and_one_that_does_no_more_is_not() -> None:
    machine = Machine(AFTER)
    machine.ready("layer", "interface.1")
    while not machine.policy.stopping:
        machine.exit("loader", 1)
        machine.advance(3.0)
    assert machine.policy.status == states.NEVER_READY
    machine = Machine(AFTER)
    machine.ready_all()
    machine.ready("worker.1", "worker.2")
    for _ in range(30):
        if "loader" in machine.pids:
            machine.exit("loader", 1)
        machine.advance(31.0)
    assert not machine.policy.stopping


def test_what_waits_for_a_type_may_be_started_on_request_and_held() -> None:
    machine = Machine(AFTER)
    assert machine.carry_out(machine.policy.start_slots(["worker.1"], 0.0)) == [Spawn("worker.1")]
    machine.carry_out(machine.policy.stop_slots(["worker.2"], 0.0))
    assert Spawn("worker.2") not in machine.ready("loader")


CODE = tuple(member._replace(is_reloaded=True) if member.type in ("loader", "worker") else member for member in AFTER)


def test_a_reload_ends_what_runs_the_code_at_once_and_starts_it_in_order() -> None:
    machine = Machine(CODE)
    machine.ready_all()
    machine.ready("worker.1", "worker.2")
    machine.now = 100.0
    actions = machine.carry_out(machine.policy.reload(machine.now))
    assert actions == [Terminate("loader"), Terminate("worker.1"), Terminate("worker.2")]
    assert machine.exit("worker.1", 0) == []
    assert machine.exit("loader", 0) == [Spawn("loader")]
    # worker.2 is in a consumer: it has two seconds.
    assert machine.ready("loader") == [Spawn("worker.1")]
    machine.ready("worker.1")
    assert Kill("worker.2") in machine.advance(policy.RELOAD_TIMEOUT)
    assert Spawn("worker.2") in machine.exit("worker.2", -9)


def test_code_that_does_not_start_is_left_alone_until_it_is_changed_again() -> None:
    machine = Machine(CODE)
    machine.ready("layer", "interface.1")
    assert "exited with status 1 after 0.0 s without having been ready; waiting for a change" in logs(
        machine.exit("loader", 1)
    )
    assert machine.advance(1000.0) == [] and not machine.policy.stopping
    assert machine.carry_out(machine.policy.reload(machine.now)) == [Spawn("loader")]
    # Another change, while it is still being imported.
    assert machine.carry_out(machine.policy.reload(machine.now)) == [Terminate("loader")]
    assert machine.exit("loader", -15) == [Spawn("loader")]
    assert Announce() not in machine.ready("loader")
    assert Announce() in machine.ready("worker.1", "worker.2")


def test_a_reload_leaves_down_what_was_stopped_unless_it_is_named() -> None:
    machine = Machine(CODE)
    machine.ready_all()
    machine.ready("worker.1", "worker.2")
    for name in ("loader", "worker.1"):
        machine.carry_out(machine.policy.stop_slots([name], machine.now))
        machine.exit(name, 0)
    assert machine.carry_out(machine.policy.reload(machine.now, ["loader"])) == [Terminate("worker.2"), Spawn("loader")]
    machine.exit("worker.2", 0)
    assert machine.ready("loader") == [Spawn("worker.2")]


SERVICE = Member("css.1", "css", is_optional=True, is_needed=False, ready_after=1.0)
ONCE = Member("migrate.1", "migrate", is_optional=True, is_needed=False, ready_after=1.0, runs_once=True)
SUCCESS = (("migrate", "completed_successfully"),)


def test_a_program_that_says_nothing_is_ready_when_it_has_lived_for_a_while() -> None:
    machine = Machine((*MEMBERS, SERVICE))
    machine.ready("layer", "interface.1", "worker.1")
    machine.advance(0.9)
    assert machine.state("css.1") is State.STARTING
    machine.advance(0.2)
    assert machine.state("css.1") is State.RUNNING


def test_an_optional_program_is_tried_for_ever_and_waited_for_by_nobody() -> None:
    machine = Machine((*MEMBERS, SERVICE))
    assert Announce() in machine.ready("layer", "interface.1", "worker.1", "worker.2")
    for _ in range(30):
        if "css.1" in machine.pids:
            machine.exit("css.1", 127)
        assert not machine.policy.stopping
        machine.advance(policy.BACKOFF_CAP)
    assert sum(action == Spawn("css.1") for action in machine.done) > 20


def test_what_runs_once_releases_what_waits_for_its_success() -> None:
    members = (*MEMBERS[:2], *(member._replace(after=SUCCESS) for member in MEMBERS[2:]), ONCE)
    machine = Machine(members)
    machine.ready("layer", "interface.1")
    machine.advance(500.0)  # however long it takes
    assert not machine.policy.stopping and "worker.1" not in machine.pids
    actions = machine.exit("migrate.1", 0)
    assert actions[-2:] == [Spawn("worker.1"), Spawn("worker.2")] and "exited with status 0" in logs(actions)
    machine.ready("worker.1", "worker.2")
    assert machine.state("migrate.1") is State.EXITED and machine.advance(100.0) == []
    assert machine.carry_out(machine.policy.start_slots(["migrate.1"], machine.now)) == [Spawn("migrate.1")]


def test_a_restart_of_all_goes_on_behind_what_runs_once() -> None:
    for status in (0, 3):
        machine = Machine((ONCE, *MEMBERS))
        machine.exit("migrate.1", 0)
        machine.ready("layer", "interface.1", "worker.1", "worker.2")
        names = [name for name in machine.policy.slots if name != "layer"]
        assert Spawn("migrate.1") in machine.carry_out(machine.policy.restart(names, machine.now))
        assert Terminate("interface.1") in machine.exit("migrate.1", status)
        assert not machine.policy.is_restarting("migrate.1") and machine.policy.is_restarting("worker.2")


def test_a_failure_of_what_the_site_waits_for_is_the_end() -> None:
    members = (*MEMBERS[:2], *(member._replace(after=SUCCESS) for member in MEMBERS[2:]), ONCE)
    machine = Machine(members)
    assert "worker.1, worker.2 cannot start without it; giving up" in logs(machine.exit("migrate.1", 3))
    assert machine.policy.status == states.NEVER_READY
    # Of what only an optional one waits for it is not.
    machine = Machine((*MEMBERS, ONCE, SERVICE._replace(after=SUCCESS)))
    assert "css.1 cannot start without it" in logs(machine.exit("migrate.1", 3))
    assert not machine.policy.stopping and "css.1" not in machine.pids


def test_the_end_whatever_its_status_and_the_start_are_conditions_too() -> None:
    after = (("migrate", "completed"), ("layer", "started"))
    machine = Machine((*MEMBERS, ONCE, SERVICE._replace(after=after)))
    assert Spawn("css.1") in machine.exit("migrate.1", 3)
    started = SERVICE._replace(after=(("worker", "started"),))
    assert Machine((*MEMBERS, started)).pids.keys() >= {"css.1"}


def test_needed_programs_are_waited_for_and_their_failure_is_the_end() -> None:
    needed = SERVICE._replace(is_optional=False, is_needed=True)
    machine = Machine((*MEMBERS, needed))
    assert Announce() not in machine.ready("layer", "interface.1", "worker.1", "worker.2")
    assert Announce() in machine.advance(1.0)
    machine = Machine((*MEMBERS, needed))
    while not machine.policy.stopping:
        if "css.1" in machine.pids:
            machine.exit("css.1", 1)
        machine.advance(0.9)
    assert machine.policy.status == states.NEVER_READY


def test_what_the_layer_needs_stops_after_it_and_is_asked_by_then_only() -> None:
    redis = SERVICE._replace(name="redis.1", type="redis", stop_phase=3)
    machine = Machine((*MEMBERS, redis), shutdown=10.0)
    machine.ready("layer", "interface.1", "worker.1", "worker.2")
    machine.advance(2.0)
    machine.carry_out(machine.policy.stop(machine.now))
    machine.advance(6.0)  # past half time everybody is asked, but not those
    asked = {action.name for action in machine.done if isinstance(action, Terminate | CloseLifetime)}
    assert asked == {"interface.1", "worker.1", "worker.2"}
    for name in ("interface.1", "worker.1"):
        machine.exit(name, 0)
    assert machine.exit("worker.2", 0) == [CloseLifetime("layer")]
    assert machine.exit("layer", 0) == [Terminate("redis.1")]
    assert Quit(states.STOPPED_BY_REQUEST) in machine.exit("redis.1", 143)


def living(timeout: float = 60.0) -> Machine:
    machine = Machine(shutdown=10.0, liveness=timeout)
    machine.ready_all()
    machine.carry_out(machine.policy.beat("worker.1", machine.pids["worker.1"], 0.0))
    return machine


def test_a_process_without_a_sign_of_life_says_what_it_does_and_is_killed() -> None:
    machine = living()
    assert machine.advance(59.0) == []
    actions = machine.advance(1.0)
    assert Abort("worker.1") in actions and "has shown no life for 60 s; killing it" in logs(actions)
    assert machine.advance(policy.LAST_WORDS) == [Kill("worker.1")]
    assert Spawn("worker.1") in machine.exit("worker.1")


def test_signs_of_life_keep_a_process() -> None:
    machine = living()
    for _ in range(20):
        assert machine.advance(59.0) == []
        machine.carry_out(machine.policy.beat("worker.1", machine.pids["worker.1"], machine.now))
    machine.exit("worker.1")  # its successor has yet to show the first
    machine.ready("worker.1")
    assert machine.advance(300.0) == []


def test_a_pause_of_the_supervisor_itself_is_nobody_elses_silence() -> None:
    machine = living()
    machine.exit("worker.2")
    machine.now = 1000.0
    machine.policy.paused(995.0)
    assert machine.carry_out(machine.policy.tick(machine.now)) == []
    assert machine.advance(54.0) == []
    actions = machine.advance(1.0)
    assert Abort("worker.1") in actions and Kill("worker.2") in actions


def test_nobody_is_killed_for_showing_no_life_when_nobody_looks_or_it_never_did() -> None:
    assert living(timeout=0.0).advance(1000.0) == []
    machine = living()
    machine.carry_out(machine.policy.stop_slots(["worker.1"], 0.0))
    assert Abort("worker.1") not in machine.advance(100.0)


NAMES = [*(member.name for member in BESIDE), "worker.1~", "worker.2~", "worker.9", "loader"]
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "ready",
                "exit",
                "exit",
                "advance",
                "advance",
                "roll",
                "stop",
                "force",
                "fail",
                "unfail",
                "hold",
                "start",
                "add",
                "remove",
                "reload",
            ]
        ),
        st.integers(0, len(NAMES) - 1),
        st.sampled_from([0, 3, -9, -15, -2]),
        st.sampled_from([0.0, 0.01, 0.1, 0.25, 1.0, 5.0, 30.0, 61.0]),
    ),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(EVENTS, st.floats(0.1, 30.0), st.booleans(), st.booleans())
def test_no_sequence_of_events_breaks_the_invariants(
    events: list[tuple[str, int, int, float]], shutdown: float, loads: bool, is_development: bool
) -> None:
    """Never two processes in a slot, no start after a stop, one end, within the deadline; see ``Machine``."""
    members = (
        (*BESIDE[:2], *(member._replace(after=(("loader", "ready"),)) for member in BESIDE[2:]), LOADER)
        if loads
        else BESIDE
    )
    if is_development:
        members = tuple(m._replace(is_reloaded=m.type in ("worker", "loader")) for m in members)
        members += (
            Member("css.1", "css", is_optional=True, ready_after=1.0),
            Member("migrate.1", "migrate", is_optional=True, ready_after=1.0, runs_once=True),
        )
    machine = Machine(members, shutdown=shutdown, liveness=20.0)
    stopped_at: float | None = None
    for event, index, status, seconds in events:
        name = NAMES[index]
        if event == "ready" and name in machine.pids:
            machine.ready(name)
        elif event == "exit" and name in machine.pids:
            machine.exit(name, status)
        elif event == "advance":
            machine.advance(seconds)
        elif event == "roll":
            machine.carry_out(machine.policy.restart(["worker.1", "worker.2", "interface.1"], machine.now))
        elif event == "stop":
            machine.carry_out(machine.policy.stop(machine.now))
        elif event == "force":
            machine.carry_out(machine.policy.force(machine.now))
        elif event == "hold" and name in machine.policy.slots:
            machine.carry_out(machine.policy.stop_slots([name], machine.now))
        elif event == "start" and name in machine.policy.slots:
            machine.carry_out(machine.policy.start_slots([name], machine.now))
        elif event == "add" and "worker.9" not in machine.policy.slots:
            machine.carry_out(machine.policy.add(BESIDE[3]._replace(name="worker.9"), machine.now))
        elif event == "remove" and "worker.9" in machine.policy.slots:
            machine.carry_out(machine.policy.remove("worker.9", machine.now))
        elif event == "beat" and name in machine.pids:
            machine.carry_out(machine.policy.beat(name, machine.pids[name], machine.now))
        elif event == "reload":
            machine.carry_out(machine.policy.reload(machine.now, ["loader"]))
        elif event == "fail":
            machine.spawn_fails.add(name)
        else:
            machine.spawn_fails.discard(name)
        if machine.policy.stopping and stopped_at is None:
            stopped_at = machine.now
        # A slot has a process exactly when the policy believes so.
        assert {n: s.pid for n, s in machine.policy.slots.items() if s.pid is not None} == machine.pids or machine.quit
    machine.carry_out(machine.policy.stop(machine.now))
    asked_at = machine.now
    machine.advance(max(shutdown, policy.KILL_RESERVE) + 0.001)
    assert machine.quit is not None
    assert machine.now - asked_at <= max(shutdown, policy.KILL_RESERVE) + 0.01
    # What was still running was told to die first.
    assert set(machine.pids) <= {a.name for a in machine.done if isinstance(a, Kill)}


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 200), min_size=1, max_size=40))
def test_a_process_restarts_at_most_at_the_pace_of_its_budget(lives: list[float]) -> None:
    machine = Machine()
    machine.ready_all()
    starts_at_once = 0
    for life in lives:
        machine.advance(life)
        if "worker.1" not in machine.pids:
            continue
        machine.ready("worker.1")
        starts_at_once += Spawn("worker.1") in machine.exit("worker.1", -11)
        machine.advance(31.0 if "worker.1" not in machine.pids else 0.0)
    assert starts_at_once <= policy.BUDGET + machine.now / policy.BUDGET_REFILL + 1
