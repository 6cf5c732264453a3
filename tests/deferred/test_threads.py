"""Other threads: what they bring to the reactor, and what bounds them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading

import pytest

from deferred.defer import CancelledError, Deferred, gather_results
from deferred.reactor import Reactor
from deferred.threads import PoolFull


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


def test_what_is_cancelled_makes_room(errors):
    """A call that no thread has yet waits no longer; the others are still bounded."""
    reactor = Reactor(threads=1, thread_backlog=2, on_error=errors.append)
    gate = threading.Event()
    started = threading.Event()
    running = reactor.defer_to_thread(lambda: (started.set(), gate.wait(10)))
    started.wait(10)
    for _ in range(5):
        waiting = reactor.defer_to_thread(int)
        waiting.add_errback(lambda failure: failure.trap(CancelledError) and None)
        waiting.cancel()
    assert reactor._pool.unfinished == 1
    kept = [reactor.defer_to_thread(int) for _ in range(2)]
    with pytest.raises(PoolFull):
        raise_from(reactor.defer_to_thread(int))
    gate.set()
    assert reactor.run_until_complete(gather_results([running, *kept]), 10)[1:] == [0, 0]
    assert reactor._pool.unfinished == 0
    reactor.close()


def test_a_thread_that_cannot_be_started_is_no_end(errors, monkeypatch):
    """The call fails if there is no other thread, and the next one may have more luck."""
    reactor = Reactor(threads=2, on_error=errors.append)
    refuse = lambda self: (_ for _ in ()).throw(RuntimeError("no more threads"))  # noqa: E731 - raise in a lambda
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="no more threads"):
            raise_from(reactor.defer_to_thread(int))
    assert reactor._pool.unfinished == 0
    assert reactor.run_until_complete(reactor.defer_to_thread(int), 10) == 0
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        both = gather_results([reactor.defer_to_thread(int), reactor.defer_to_thread(int)])
    assert reactor.run_until_complete(both, 10) == [0, 0]
    reactor.close()


def test_a_thread_brings_no_deferred(reactor, run):
    """It would belong to a thread that is none of the reactor's."""
    with pytest.raises(TypeError, match="returned a Deferred"):
        run(reactor.defer_to_thread(Deferred))


def test_a_late_call_never_writes_to_a_file_that_is_not_the_reactors(monkeypatch):
    """Closing waits for a thread that is about to wake the reactor, and what comes later is not kept."""
    reactor = Reactor()
    about_to, go_on, closed = threading.Event(), threading.Event(), threading.Event()
    when_written = []

    def write(fd, data):
        about_to.set()
        go_on.wait(10)
        when_written.append(closed.is_set())
        return len(data)

    def close(fd):
        closed.set()
        really_close(fd)

    really_close = os.close
    monkeypatch.setattr(os, "write", write)
    monkeypatch.setattr(os, "close", close)
    caller = threading.Thread(target=reactor.call_soon_threadsafe, args=(int,))
    caller.start()
    about_to.wait(10)
    later = threading.Timer(0.01, go_on.set)
    later.start()
    reactor.close()
    caller.join()
    later.join()
    assert when_written == [False]
    reactor.call_soon_threadsafe(int)
    assert when_written == [False]
    assert not reactor._from_threads


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


def test_a_script_ends_though_a_thread_hangs():
    """The pool's threads do not hold the process."""
    script = (
        "import threading; from deferred.reactor import get_reactor; r = get_reactor();"
        "r.defer_to_thread(threading.Event().wait); r.call_later(0.01, r.stop); r.run(); print('done')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "done\n"


def test_a_name_that_cannot_be_one_is_unknown(reactor, run):
    """The resolver's own error, whatever Python says of it."""
    with pytest.raises(socket.gaierror, match="not a name"):
        run(reactor.getaddrinfo("x" * 70 + ".example", 25))
