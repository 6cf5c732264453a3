"""The reactor's loop: files, calls, threads, signals, and what goes wrong in them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

from deferred.defer import CancelledError, Deferred, gather_results
from deferred.poller import SelectorPoller, best_poller
from deferred.reactor import Reactor, get_reactor
from deferred.threads import PoolFull


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
    """A script sees its mistakes."""
    reactor = Reactor()
    reactor.call_soon(lambda: int("x"))
    turns(reactor, 2)
    reactor.close()
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


def test_another_thread_wakes_the_reactor(reactor):
    """Thousands of calls from several threads all arrive, each thread's in its order."""
    seen: dict[int, list[int]] = {0: [], 1: [], 2: []}
    done: Deferred[None] = Deferred()

    def arrive(thread, number):
        seen[thread].append(number)
        if sum(map(len, seen.values())) == 6000:
            done.callback(None)

    def call(thread):
        for number in range(2000):
            reactor.call_soon_threadsafe(arrive, thread, number)

    threads = [threading.Thread(target=call, args=(number,)) for number in seen]
    for thread in threads:
        thread.start()
    reactor.run_until_complete(done, 10)
    for thread in threads:
        thread.join()
    assert all(numbers == list(range(2000)) for numbers in seen.values())


def test_a_call_from_a_thread_after_the_end_is_ignored():
    """A thread that comes back late does no harm."""
    reactor = Reactor()
    reactor.close()
    reactor.close()
    reactor.call_soon_threadsafe(int)


def test_a_thread_brings_its_result_or_its_error(reactor, run):
    """On the reactor's thread."""
    here = threading.get_ident()
    assert run(reactor.defer_to_thread(threading.get_ident)) != here
    assert run(reactor.defer_to_thread(int, "11", base=2)) == 3
    where = reactor.defer_to_thread(int, "1").add_callback(lambda _: threading.get_ident())
    assert run(where) == here
    with pytest.raises(ValueError, match="invalid literal"):
        run(reactor.defer_to_thread(int, "x"))


def test_threads_and_those_who_wait_for_one_are_bounded(errors):
    """Beyond the bound a call fails at once, and there is room again afterwards."""
    reactor = Reactor(threads=2, thread_backlog=3, on_error=errors.append)
    gate = threading.Event()
    running = [reactor.defer_to_thread(gate.wait, 10) for _ in range(5)]
    names = {thread.name for thread in threading.enumerate() if thread.name.startswith("deferred-")}
    refused = reactor.defer_to_thread(int)
    with pytest.raises(PoolFull):
        reactor.run_until_complete(refused, 10)
    assert len(names) >= 2
    assert reactor._pool._threads == 2
    gate.set()
    assert reactor.run_until_complete(gather_results(running), 10) == [True] * 5
    assert reactor.run_until_complete(reactor.defer_to_thread(int), 10) == 0
    assert reactor._pool.unfinished == 0
    reactor.close()
    with pytest.raises(RuntimeError, match="closed"):
        raise_from(reactor.defer_to_thread(int))


def raise_from(deferred):
    """Raise the error of a Deferred that has failed."""
    failures = []
    deferred.add_errback(failures.append)
    failures[0].raise_exception()


def test_a_call_that_waits_for_a_thread_can_be_cancelled(errors):
    """It is never made; one that runs is not stopped, but nobody hears of it."""
    reactor = Reactor(threads=1, on_error=errors.append)
    gate = threading.Event()
    calls = []
    running = reactor.defer_to_thread(gate.wait, 10)
    waiting = reactor.defer_to_thread(calls.append, "made")
    outcomes = []
    for deferred in (waiting, running):
        deferred.add_errback(lambda failure: outcomes.append(failure.check(CancelledError)))
        deferred.cancel()
    gate.set()
    reactor.run_until_complete(reactor.defer_to_thread(int), 10)
    reactor.close()
    assert calls == []
    assert outcomes == [CancelledError, CancelledError]


def test_names_are_resolved_in_threads_of_their_own(errors):
    """A pool that is full does not keep names from being resolved; an address needs no thread."""
    reactor = Reactor(threads=1, thread_backlog=0, on_error=errors.append)
    gate = threading.Event()
    blocked = reactor.defer_to_thread(gate.wait, 10)
    addresses = reactor.run_until_complete(reactor.getaddrinfo("localhost", 25), 10)
    assert ("127.0.0.1", 25) in addresses or ("::1", 25) in addresses
    numeric = reactor.getaddrinfo("::1", 587)
    assert numeric.result == [("::1", 587)]
    gate.set()
    reactor.run_until_complete(blocked, 10)
    reactor.close()


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


def test_a_script_ends_though_a_thread_hangs():
    """The pool's threads do not hold the process."""
    script = (
        "import threading; from deferred.reactor import get_reactor; r = get_reactor();"
        "r.defer_to_thread(threading.Event().wait); r.call_later(0.01, r.stop); r.run(); print('done')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "done\n"
