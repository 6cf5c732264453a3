"""Queue time: real time goes by, the wall clock jumps."""

from __future__ import annotations

import msgspec
import pytest

from deferred.testing import Clock
from service.journal import Journal
from service.queue.calendar import BootClock, Calendar, Seen, resumed

DAY = 86_400.0
YEAR = 365 * DAY
JUMPS = [DAY, -DAY, YEAR, -YEAR]
START = 1_790_000_000.0


class Machine:
    """Its clocks, and calendars on it: one for each process that is started there."""

    def __init__(self) -> None:
        self.clock = Clock(time=1000.0, wall_time=START)
        self.events: list[tuple[str, dict[str, object]]] = []
        self.boot = "boot 1"
        self.booted = 900.0
        self.jumped = 0

    def start(self, seen: Seen | None = None) -> Calendar:
        """A calendar for a process that has read `seen`."""
        booted = self.booted
        boot = BootClock(self.boot, lambda: self.clock.time() - booted)
        calendar = Calendar(self.clock, Journal(lambda *event: self.events.append(event)), boot, seen)
        calendar.jumped = self.count
        return calendar

    def count(self) -> None:
        self.jumped += 1

    def jump(self, seconds: float) -> None:
        self.clock.set_wall_time(self.clock.wall_time() + seconds)

    def reboot(self) -> None:
        self.boot += "1"
        self.booted = self.clock.time()


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_on_a_healthy_machine_queue_time_is_wall_time(machine: Machine) -> None:
    """To the last bit, and nothing is told."""
    calendar = machine.start()
    machine.clock.advance(YEAR)
    assert calendar.now() == machine.clock.wall_time()
    assert calendar.wall(START) == calendar.queue(START) == START
    assert machine.events == []


@pytest.mark.parametrize("jump", JUMPS)
def test_a_jump_takes_no_time(machine: Machine, jump: float) -> None:
    """Queue time goes on as if the clock had not been touched; what people see and say is by the new clock."""
    calendar = machine.start()
    machine.clock.advance(100)
    assert calendar.now() == START + 100
    machine.jump(jump)
    machine.clock.advance(5)
    assert calendar.now() == pytest.approx(START + 105, abs=1e-6)
    assert calendar.wall(calendar.now()) == pytest.approx(machine.clock.wall_time(), abs=1e-6)
    assert calendar.queue(machine.clock.wall_time()) == pytest.approx(START + 105, abs=1e-6)


@pytest.mark.parametrize("jump", JUMPS)
def test_a_jump_is_told_once(machine: Machine, jump: float) -> None:
    """With its seconds and its direction, and whoever moves scheduled jobs is called a turn later."""
    calendar = machine.start()
    machine.jump(jump)
    calendar.now()
    calendar.now()
    assert machine.jumped == 0
    machine.clock.advance(60)
    calendar.now()
    (event,) = machine.events
    assert event[0] == "clock_jumped"
    assert event[1]["seconds"] == pytest.approx(jump)
    assert ("ahead" if jump > 0 else "back") in str(event[1]["why"])
    assert machine.jumped == 1


@pytest.mark.parametrize("step", [29.0, -29.0])
def test_small_corrections_are_followed(machine: Machine, step: float) -> None:
    """NTP knows better, also where it steps again and again."""
    calendar = machine.start()
    for _ in range(5):
        machine.jump(step)
        machine.clock.advance(1)
        assert calendar.now() == machine.clock.wall_time()
    assert machine.events == []


def test_there_and_back_again_leaves_no_trace(machine: Machine) -> None:
    """Queue time is wall time once the clock is right again."""
    calendar = machine.start()
    for jump in (YEAR, -YEAR, -DAY, DAY):
        machine.jump(jump)
        machine.clock.advance(1)
        calendar.now()
    assert calendar.offset == pytest.approx(0.0, abs=1e-5)
    assert calendar.now() == pytest.approx(machine.clock.wall_time(), abs=1e-5)


def test_a_process_stopped_between_two_clocks_sees_no_jump(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read a minute apart, the clocks seem to differ; a second look sees that they do not."""
    calendar = machine.start()
    stops = [60.0]

    def wall_time() -> float:
        wall = machine.clock._now + machine.clock._wall_offset
        if stops:
            machine.clock.advance(stops.pop())
        return wall

    monkeypatch.setattr(machine.clock, "wall_time", wall_time)
    assert calendar.now() == START + 60
    assert machine.events == []


# a restart


@pytest.mark.parametrize("jump", JUMPS)
def test_a_restart_goes_on_after_a_jump(machine: Machine, jump: float) -> None:
    """What was noticed stays noticed, and is not told again."""
    calendar = machine.start()
    machine.jump(jump)
    seen = calendar.seen()
    machine.clock.advance(3600)
    again = machine.start(seen)
    assert again.now() == pytest.approx(START + 3600, abs=1e-6)
    assert len(machine.events) == 1


@pytest.mark.parametrize("jump", JUMPS)
def test_a_jump_while_no_daemon_runs_takes_no_time(machine: Machine, jump: float) -> None:
    """In the same boot it is known to the second how long nobody ran."""
    seen = machine.start().seen()
    machine.clock.advance(1800)
    machine.jump(jump)
    machine.clock.advance(1800)
    again = machine.start(seen)
    assert again.now() == pytest.approx(START + 3600, abs=1e-6)
    assert [event for event, _ in machine.events] == ["clock_jumped"]
    assert not again.aligned


@pytest.mark.parametrize("jump", [-DAY, -YEAR])
def test_after_a_boot_a_clock_that_is_behind_has_jumped_back(machine: Machine, jump: float) -> None:
    """A machine whose clock lost its battery: queue time goes on from where it was."""
    seen = machine.start().seen()
    machine.reboot()
    machine.jump(jump)
    machine.clock.advance(600)
    again = machine.start(seen)
    assert again.now() == pytest.approx(START, abs=1e-6)
    machine.jump(-jump)  # the time server has been reached
    machine.clock.advance(60)
    assert again.now() == pytest.approx(START + 60, abs=1e-6)


@pytest.mark.parametrize("off", [600.0, DAY, YEAR])
def test_after_a_boot_a_clock_that_is_ahead_is_believed(machine: Machine, off: float) -> None:
    """The machine may have been off for that long."""
    seen = machine.start().seen()
    machine.reboot()
    machine.clock.advance(off)
    again = machine.start(seen)
    assert again.now() == machine.clock.wall_time() == START + off
    assert machine.events == []


def test_a_boot_clock_that_went_back_is_another(machine: Machine) -> None:
    """Nothing is made of times that do not belong together."""
    seen = msgspec.structs.replace(machine.start().seen(), elapsed=1e9)
    machine.clock.advance(DAY)
    assert resumed(seen, machine.clock.wall_time(), BootClock(machine.boot, machine.clock.time)) == 0.0


def test_without_a_boot_clock_the_clocks_are_compared_all_the_same(machine: Machine) -> None:
    """A jump while the daemon runs needs no more than the reactor's own; at a start a clock ahead is believed."""
    calendar = Calendar(machine.clock, Journal())
    machine.jump(YEAR)
    machine.clock.advance(10)
    assert calendar.now() == pytest.approx(START + 10, abs=1e-6)
    seen = calendar.seen()
    assert seen.boot is None
    assert resumed(seen, seen.wall + DAY, None) == seen.offset
    assert resumed(seen, seen.wall - DAY, None) == seen.offset - DAY


def test_what_was_seen_survives_being_written_down(machine: Machine) -> None:
    """To the last bit."""
    calendar = machine.start()
    for jump in (YEAR / 3, -DAY / 7):
        machine.jump(jump)
        machine.clock.advance(100.1)
        calendar.now()
    seen = calendar.seen()
    assert msgspec.json.decode(msgspec.json.encode(seen), type=Seen) == seen


# scheduled jobs


def test_until_scheduled_jobs_have_been_moved_the_calendar_is_not_aligned(machine: Machine) -> None:
    """Those that are to follow were scheduled for later than was reached when the clock jumped."""
    calendar = machine.start()
    machine.clock.advance(100)
    calendar.now()
    assert calendar.aligned
    machine.jump(DAY)
    machine.clock.advance(30)
    calendar.now()
    assert not calendar.aligned
    assert calendar.reached == START + 100
    calendar.align(calendar.jumps)
    assert calendar.aligned


def test_a_jump_while_jobs_are_moved_leaves_them_to_be_moved_again(machine: Machine) -> None:
    """Also where it goes back to where the clock was."""
    calendar = machine.start()
    machine.jump(DAY)
    calendar.now()
    jumps = calendar.jumps
    machine.jump(-DAY)
    calendar.now()
    calendar.align(jumps)
    assert not calendar.aligned
    assert calendar.reached == START


def test_a_start_knows_that_jobs_were_not_all_moved(machine: Machine) -> None:
    """A crash in between is made good, and what had not begun at the jump still has not."""
    calendar = machine.start()
    machine.jump(DAY)
    calendar.now()
    machine.clock.advance(10)
    seen = calendar.seen()
    machine.clock.advance(10)
    again = machine.start(seen)
    assert not again.aligned
    assert again.reached == START


# the age of files


@pytest.mark.parametrize("jump", JUMPS)
def test_nothing_written_lately_is_old_whatever_the_clock_did(machine: Machine, jump: float) -> None:
    """A file bears the wall clock's time; it is a week old a week after it was written, never earlier."""
    calendar = machine.start()
    before = machine.clock.wall_time()
    machine.jump(jump)
    machine.clock.advance(DAY)
    calendar.now()
    after = machine.clock.wall_time()
    machine.clock.advance(6 * DAY - 1)
    assert calendar.earliest(7 * DAY) <= min(before, after)
    machine.clock.advance(2 * DAY)
    assert calendar.earliest(7 * DAY) > after


def test_former_jumps_are_forgotten_when_nothing_is_left_from_before(machine: Machine) -> None:
    """A clock that was set by a year, once, does not keep files for a year; nor does one that jumps every day."""
    calendar = machine.start()
    for _ in range(100):
        machine.jump(DAY / 2)
        machine.clock.advance(DAY / 2)
        calendar.now()
    assert calendar.earliest(7 * DAY) >= machine.clock.wall_time() - 15 * DAY
    assert len(calendar.seen().former) <= 50
    machine.clock.advance(8 * DAY)
    assert calendar.earliest(7 * DAY) == pytest.approx(machine.clock.wall_time() - 7 * DAY)


def test_a_clock_that_never_stands_still_is_remembered_in_few_words(machine: Machine) -> None:
    """And nothing is taken for old that is not."""
    calendar = machine.start()
    written = []
    for n in range(200):
        machine.jump(3600.0 if n % 2 else -3700.0)
        machine.clock.advance(60)
        calendar.now()
        written.append(machine.clock.wall_time())
    assert len(calendar.seen().former) == 50
    assert calendar.earliest(200 * 60) <= min(written)
    machine.clock.advance(7 * DAY - 200 * 60)
    assert calendar.earliest(7 * DAY) <= min(written)
