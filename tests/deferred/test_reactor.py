"""The reactor's loop: files, calls, signals, and what goes wrong in them."""

from __future__ import annotations

import os
import signal
import socket
import threading

import pytest

from deferred.defer import Deferred
from deferred.poller import SelectorPoller, best_poller
from deferred.reactor import Reactor, get_reactor


@pytest.fixture(params=[best_poller, SelectorPoller], ids=["epoll", "selectors"])
def either(request, errors):
    """A reactor on each of the two pollers."""
    reactor = Reactor(on_error=errors.append, poller=request.param())
    yield reactor
    reactor.close()


@pytest.fixture
def pair():
    """Two connected sockets."""
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
    yield ends
    for end in ends:
        end.close()


def turns(reactor, count):
    """Let the reactor turn at least `count` times."""
    done: Deferred[None] = Deferred()

    def step(left):
        if left:
            reactor.call_soon(step, left - 1)
        else:
            done.callback(None)

    step(count)
    reactor.run_until_complete(done, 10)


def test_a_reader_is_called_while_there_is_something_to_read(either, pair):
    """Until it is read, or the reader is removed."""
    calls = []
    either.add_reader(pair[0].fileno(), calls.append, "read")
    turns(either, 3)
    assert calls == []
    pair[1].send(b"x")
    turns(either, 5)
    assert len(calls) >= 3
    assert either.remove_reader(pair[0].fileno())
    assert not either.remove_reader(pair[0].fileno())
    calls.clear()
    turns(either, 3)
    assert calls == []


def test_reader_and_writer_of_one_file_are_independent(either, pair):
    """Removing one leaves the other."""
    calls = []
    fd = pair[0].fileno()
    either.add_reader(fd, calls.append, "read")
    either.add_writer(fd, calls.append, "write")
    pair[1].send(b"x")
    turns(either, 3)
    assert {"read", "write"} == set(calls)
    either.remove_reader(fd)
    turns(either, 1)
    calls.clear()
    turns(either, 3)
    assert set(calls) == {"write"}
    assert either.remove_writer(fd)
    assert not either.remove_writer(fd)


def test_a_reader_can_be_replaced(either, pair):
    """The last one given counts."""
    calls = []
    either.add_reader(pair[0].fileno(), calls.append, "old")
    either.add_reader(pair[0].fileno(), calls.append, "new")
    pair[1].send(b"x")
    turns(either, 3)
    assert set(calls) == {"new"}


def test_a_file_closed_by_another_handler_of_its_batch_is_not_called(either):
    """Nor is the file that was given its number meanwhile."""
    one, two = socket.socketpair(), socket.socketpair()
    calls = []
    newcomers = []

    def close(mine, other, name):
        calls.append(name)
        either.remove_reader(mine.fileno())
        number = other.fileno()
        either.remove_reader(number)
        other.close()
        # a new file under the number whose event is still in the batch, with nothing to read
        newcomers.extend(socket.socketpair())
        assert newcomers[0].fileno() == number
        either.add_reader(number, calls.append, "newcomer")

    either.add_reader(one[0].fileno(), close, one[0], two[0], "one")
    either.add_reader(two[0].fileno(), close, two[0], one[0], "two")
    one[1].send(b"x")
    two[1].send(b"x")
    turns(either, 4)
    assert len(calls) == 1
    assert calls[0] in ("one", "two")
    either.remove_reader(newcomers[0].fileno())
    for end in (*one, *two, *newcomers):
        end.close()


def test_a_file_closed_behind_the_reactors_back_harms_nobody(either):
    """Its number can be watched again."""
    calls = []
    ends = socket.socketpair()
    fd = ends[0].fileno()
    either.add_reader(fd, calls.append, "gone")
    ends[0].close()
    ends[1].close()
    either.remove_reader(fd)
    again = socket.socketpair()
    again[1].send(b"x")
    either.add_reader(again[0].fileno(), calls.append, "there")
    turns(either, 3)
    assert set(calls) == {"there"}
    either.remove_reader(again[0].fileno())
    for end in again:
        end.close()


@pytest.mark.parametrize("kind", ["reader", "writer"])
def test_a_file_closed_without_a_word_leaves_its_number_to_the_next(either, kind):
    """Who gave no notice loses nothing but the calls; the new file's are made."""
    calls = []
    ends = socket.socketpair()
    fd = ends[0].fileno()
    add, remove = getattr(either, f"add_{kind}"), getattr(either, f"remove_{kind}")
    add(fd, calls.append, "gone")
    ends[0].close()
    ends[1].close()
    again = socket.socketpair()
    assert again[0].fileno() == fd
    again[1].send(b"x")
    add(fd, calls.append, "there")
    turns(either, 3)
    assert set(calls) == {"there"}
    remove(fd)
    for end in again:
        end.close()


def test_a_callback_that_raises_is_reported_and_stops_nothing(either, pair, errors):
    """Whether a file, a timer or a call: those beside it are made."""
    calls = []

    def fault(what):
        either.remove_reader(pair[0].fileno())
        raise ValueError(what)

    either.add_reader(pair[0].fileno(), fault, "file")
    pair[1].send(b"x")
    either.call_soon(fault, "soon")
    either.call_soon(calls.append, "soon")
    either.call_later(0.001, fault, "later")
    either.call_later(0.001, calls.append, "later")
    done: Deferred[None] = Deferred()
    either.call_later(0.01, done.callback, None)
    either.run_until_complete(done, 10)
    assert calls == ["soon", "later"]
    assert sorted(map(str, errors)) == ["file", "later", "soon"]
    errors.clear()


def test_an_on_error_that_raises_stops_nothing_either(capsys):
    """Its error is printed, as there is nobody else to tell."""
    reactor = Reactor(on_error=lambda error: 1 // 0)
    reactor.call_soon(lambda: int("x"))
    turns(reactor, 2)
    reactor.close()
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_without_a_hook_errors_are_printed(capsys):
    """A script sees its mistakes; `with` closes its reactor."""
    with Reactor() as reactor:
        reactor.call_soon(lambda: int("x"))
        turns(reactor, 2)
    with pytest.raises(RuntimeError, match="closed"):
        reactor.run()
    assert "invalid literal" in capsys.readouterr().err


def test_calls_asked_for_in_a_turn_are_the_next_turns(reactor):
    """A call that asks for itself again does not keep a file waiting."""
    order = []

    def again():
        order.append("call")
        if len(order) < 50:
            reactor.call_soon(again)

    ends = socket.socketpair()
    ends[1].send(b"x")
    reactor.add_reader(ends[0].fileno(), order.append, "file")
    again()
    turns(reactor, 3)
    assert order.index("file") <= 2
    reactor.remove_reader(ends[0].fileno())
    for end in ends:
        end.close()


def test_run_goes_on_until_stop_and_keeps_to_the_triggers(reactor):
    """Start triggers first, stop triggers at the end, with what they wait for."""
    order = []
    slow: Deferred[None] = Deferred()

    def stopping():
        order.append("stopping")
        reactor.call_later(0.005, order.append, "slow work done")
        reactor.call_later(0.01, slow.callback, None)
        return slow

    reactor.add_trigger("start", order.append, "start")
    removed = reactor.add_trigger("start", order.append, "never")
    reactor.remove_trigger("start", removed)
    reactor.add_trigger("stop", stopping)
    reactor.call_later(0.001, reactor.stop)
    reactor.call_later(0.002, reactor.stop)
    reactor.run()
    assert order == ["start", "stopping", "slow work done"]
    assert not reactor.running


def test_a_stop_asked_for_before_run_ends_its_first_turn(reactor):
    """Whoever is quicker than `run` is heard all the same; the triggers are called, and the next run goes on."""
    order = []
    reactor.add_trigger("start", order.append, "start")
    reactor.add_trigger("stop", order.append, "stop")
    reactor.stop()
    reactor.stop()
    reactor.call_later(30, order.append, "it did not stop")
    reactor.run()
    assert order == ["start", "stop"]
    reactor.call_later(0.001, order.append, "second run")
    reactor.call_later(0.001, reactor.stop)
    reactor.run()
    assert order == ["start", "stop", "start", "second run", "stop"]


def test_a_stop_trigger_that_fails_is_reported_and_the_reactor_stops(reactor, errors):
    """Whether at once or later."""
    late: Deferred[None] = Deferred()
    reactor.add_trigger("stop", lambda: 1 // 0)
    reactor.add_trigger("stop", lambda: late)
    reactor.call_soon(reactor.stop)
    reactor.call_later(0.001, late.errback, ValueError("late"))
    reactor.run()
    assert [type(error) for error in errors] == [ZeroDivisionError, ValueError]
    errors.clear()


def test_a_running_reactor_does_not_run_again(reactor, errors):
    """Nor is it closed."""
    reactor.call_soon(reactor.run)
    reactor.call_soon(reactor.close)
    turns(reactor, 2)
    assert [str(error) for error in errors] == ["the reactor is running already", "the reactor is running"]
    errors.clear()


def test_a_run_that_is_refused_leaves_nothing_behind(reactor, errors):
    """Neither start triggers that are called, nor a Deferred whose result is taken."""
    starts = []
    mine: Deferred[int] = Deferred()
    reactor.add_trigger("start", starts.append, "start")
    reactor.call_soon(reactor.run)
    reactor.call_soon(reactor.run_until_complete, mine)
    turns(reactor, 3)
    assert [str(error) for error in errors] == ["the reactor is running already"] * 2
    errors.clear()
    assert starts == []
    results = []
    mine.add_callback(results.append)
    mine.callback(7)
    assert results == [7]


def test_waiting_for_a_deferred_ends_with_its_result_its_error_or_the_limit(reactor, unhandled):
    """What a script needs of a reactor."""
    good: Deferred[int] = Deferred()
    bad: Deferred[int] = Deferred()
    reactor.call_later(0.001, good.callback, 7)
    reactor.call_later(0.001, bad.errback, KeyError("x"))
    assert reactor.run_until_complete(good, 10) == 7
    with pytest.raises(KeyError):
        reactor.run_until_complete(bad, 10)
    with pytest.raises(TimeoutError):
        reactor.run_until_complete(Deferred(), 0.001)
    reactor.call_soon(reactor.stop)
    with pytest.raises(RuntimeError, match="stopped"):
        reactor.run_until_complete(Deferred(), 10)


def test_a_timer_far_away_does_not_stop_the_wait(reactor):
    """Further than the system's integers go."""
    for delay in (1e9, 1e300, float("inf")):
        reactor.call_later(delay, int)
    killer = threading.Timer(0.01, reactor.call_soon_threadsafe, (reactor.stop,))
    killer.start()
    reactor.run()
    killer.join()


def test_a_signal_becomes_a_call_in_a_turn(reactor):
    """While the reactor waits for nothing else."""
    got: Deferred[str] = Deferred()
    before = signal.getsignal(signal.SIGUSR1)
    reactor.add_signal_handler(signal.SIGUSR1, got.callback, "usr1")
    killer = threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGUSR1))
    killer.start()
    assert reactor.run_until_complete(got, 10) == "usr1"
    killer.join()
    assert reactor.remove_signal_handler(signal.SIGUSR1)
    assert not reactor.remove_signal_handler(signal.SIGUSR1)
    assert signal.getsignal(signal.SIGUSR1) == before
    assert signal.set_wakeup_fd(-1) == -1


def test_a_signal_that_cannot_be_caught_leaves_nothing_behind(reactor):
    """The reactor's descriptor is not where signals are noted."""
    with pytest.raises(OSError, match="Invalid"):
        reactor.add_signal_handler(signal.SIGKILL, int)
    assert signal.set_wakeup_fd(-1) == -1


def test_closing_gives_the_signals_back():
    """The next reactor, or none, has them."""
    before = signal.getsignal(signal.SIGUSR2)
    reactor = Reactor()
    reactor.add_signal_handler(signal.SIGUSR2, int)
    reactor.close()
    assert signal.getsignal(signal.SIGUSR2) == before


def test_the_default_reactor_is_one():
    """Until it is closed."""
    reactor = get_reactor()
    assert get_reactor() is reactor
    reactor.close()
    assert get_reactor() is not reactor
    get_reactor().close()
