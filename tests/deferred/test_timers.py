"""Timers: their order, and what putting them off costs, counted and not timed."""

from __future__ import annotations

import pytest

from deferred import timers
from deferred.testing import Clock


def test_timers_are_called_in_the_order_of_their_times(clock):
    """The earlier time first; for one time, who asked first."""
    calls = []
    for delay, name in ((2, "late"), (1, "first"), (1, "second"), (0, "now")):
        clock.call_later(delay, calls.append, name)
    clock.advance(2)
    assert calls == ["now", "first", "second", "late"]


def test_a_cancelled_timer_is_not_called(clock):
    """Cancelling is final, and harmless when repeated."""
    calls = []
    timer = clock.call_later(1, calls.append, "never")
    timer.cancel()
    timer.cancel()
    clock.advance(5)
    assert calls == []
    assert timer.cancelled()
    assert clock.pending == 0


def test_a_timer_that_was_called_does_not_count_as_cancelled(clock):
    """Cancelling it afterwards changes nothing."""
    timer = clock.call_later(1, int)
    clock.advance(1)
    timer.cancel()
    assert not timer.cancelled()
    with pytest.raises(RuntimeError, match="made already"):
        timer.reset(1)


def test_a_timer_can_be_put_off_and_brought_forward(clock):
    """The last time that was asked for counts."""
    calls = []
    timer = clock.call_later(10, lambda: calls.append(clock.time()))
    timer.reset(20)
    timer.reset(5)
    clock.advance(3)
    timer.reset(4)
    assert timer.when() == 7
    clock.advance(30)
    assert calls == [7]
    assert clock.pending == 0


def test_a_cancelled_timer_cannot_be_put_off(clock):
    """It would be called after all."""
    timer = clock.call_later(1, int)
    timer.cancel()
    with pytest.raises(RuntimeError, match="cancelled"):
        timer.reset(1)


@pytest.mark.parametrize("delay", [-1, float("nan")])
def test_a_delay_that_is_none_is_refused(clock, delay):
    """A negative delay is somebody's mistake in reckoning, as is NaN."""
    with pytest.raises(ValueError, match="delay"):
        clock.call_later(delay, int)
    with pytest.raises(ValueError, match="delay"):
        clock.call_later(1, int).reset(delay)


def test_what_a_call_asks_for_is_the_next_turns(clock):
    """Even with no delay at all."""
    calls = []

    def first():
        calls.append("first")
        clock.call_soon(calls.append, "soon")
        clock.call_later(0, calls.append, "later")

    clock.call_soon(first)
    clock.call_later(0, calls.append, "beside")
    clock.turn()
    assert calls == ["first", "beside"]
    clock.turn()
    assert calls == ["first", "beside", "soon", "later"]


def test_a_call_may_cancel_another_of_its_turn(clock):
    """Being due is not being made."""
    calls = []
    clock.call_later(1, lambda: other.cancel())
    other = clock.call_later(1, calls.append, "other")
    soon = clock.call_soon(calls.append, "soon")
    soon.cancel()
    clock.advance(2)
    assert calls == []


def test_a_call_for_the_next_turn_can_be_put_off(clock):
    """A handle is a handle."""
    calls = []
    clock.call_soon(calls.append, "x").reset(3)
    clock.advance(2)
    assert calls == []
    clock.advance(1)
    assert calls == ["x"]


def test_putting_off_a_hundred_thousand_timers_does_not_touch_the_heap(monkeypatch, clock):
    """A deadline per connection that each octet pushes back costs an assignment."""
    pushes = 0
    push = timers.heappush

    def counting(heap, item):
        nonlocal pushes
        pushes += 1
        push(heap, item)

    monkeypatch.setattr(timers, "heappush", counting)
    called = []
    handles = [clock.call_later(60, called.append, number) for number in range(100_000)]
    assert pushes == 100_000
    for round_ in range(5):
        clock.advance(1)
        for handle in handles:
            handle.reset(60 + round_)
            handle.reset(30)
            handle.reset(60)
    # brought forward once, below the heap's time, each was pushed once more: no more than that
    assert pushes <= 200_000
    assert clock._schedule.heap_size <= 200_064
    clock.advance(59)
    assert called == []
    clock.advance(1)
    assert len(called) == 100_000


def test_cancelled_timers_do_not_fill_the_heap(clock):
    """What was cancelled goes when it is the greater part."""
    kept = clock.call_later(1000, int)
    for _ in range(100_000):
        clock.call_later(500, int).cancel()
        assert clock._schedule.heap_size <= 200
    assert clock.pending == 1
    assert not kept.cancelled()


def test_compaction_in_the_middle_of_a_turn_loses_nothing(clock):
    """A call that cancels thousands while the turn walks the heap."""
    calls = []
    doomed = []
    clock.call_later(1, lambda: [timer.cancel() for timer in doomed])
    for number in range(1000):
        doomed.append(clock.call_later(1, calls.append, "doomed"))
        if number % 10 == 0:
            clock.call_later(1, calls.append, number).reset(1 + number / 1000)
    clock.advance(3)
    assert calls == list(range(0, 1000, 10))
    assert clock.pending == 0


def test_the_clock_raises_what_a_call_raises(clock):
    """A test sees the error where time passed."""
    clock.call_later(1, lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        clock.advance(1)


def test_an_interruption_loses_no_calls(clock):
    """Whatever was due beside the one that raised is called when time goes on."""
    calls = []
    clock.call_soon(lambda: 1 // 0)
    clock.call_soon(calls.append, "soon")
    clock.call_later(0, calls.append, "later")
    with pytest.raises(ZeroDivisionError):
        clock.turn()
    assert calls == []
    clock.turn()
    assert calls == ["soon", "later"]


def test_the_wall_clock_jumps_alone(clock):
    """Timers do not see it."""
    calls = []
    clock.call_later(10, calls.append, 1)
    clock.set_wall_time(0.0)
    assert clock.wall_time() == 0
    clock.advance(9)
    assert (clock.wall_time(), calls) == (9, [])


def test_a_clock_pumps_in_steps_and_runs_until_fired(clock):
    """The two other ways to let time pass."""
    from deferred.defer import Deferred

    deferred: Deferred[str] = Deferred()
    clock.call_later(3, deferred.callback, "three")
    clock.pump([1, 1])
    assert clock.time() == 2
    assert clock.run(deferred) == "three"
    assert clock.time() == 3
    with pytest.raises(TimeoutError, match="nothing is left"):
        clock.run(Deferred())


def test_a_loop_without_time_is_noticed():
    """Instead of hanging the test."""
    clock = Clock()

    def again():
        clock.call_soon(again)

    again()
    with pytest.raises(RuntimeError, match="same moment"):
        clock.advance(1)
