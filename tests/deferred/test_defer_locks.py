"""Locks, semaphores and queues: who gets it, and when."""

from __future__ import annotations

from typing import Any

import pytest

from deferred.defer import (
    CancelledError,
    Deferred,
    DeferredLock,
    DeferredQueue,
    DeferredSemaphore,
    QueueOverflow,
    QueueUnderflow,
    ensure_deferred,
    fail,
    succeed,
)
from deferred.failure import Failure

MANY = 20_000


def error_of(deferred: Deferred[Any]) -> BaseException:
    seen: list[Failure] = []
    deferred.add_errback(seen.append)
    return seen[0].value


def test_a_lock_has_one_holder_and_the_rest_in_line():
    """Each release hands it to who waits longest."""
    lock = DeferredLock()
    first, second, third = lock.acquire(), lock.acquire(), lock.acquire()
    assert (first.result, second.called, third.called, lock.locked) == (lock, False, False, True)
    lock.release()
    assert (second.called, third.called, lock.locked) == (True, False, True)
    lock.release()
    lock.release()
    assert (third.called, lock.locked) == (True, False)


def test_a_semaphore_has_as_many_holders_as_tokens():
    """And one more waits."""
    semaphore = DeferredSemaphore(2)
    held = [semaphore.acquire() for _ in range(3)]
    assert [d.called for d in held] == [True, True, False]
    assert (semaphore.tokens, semaphore.limit) == (0, 2)
    semaphore.release()
    assert held[2].called


def test_a_newcomer_does_not_overtake_who_waits():
    """Not even when he comes in the midst of a release."""
    lock = DeferredLock()
    order: list[str] = []
    lock.acquire()

    def reenter(_: object) -> None:
        order.append("first")
        lock.acquire().add_callback(lambda _: order.append("newcomer"))
        lock.release()

    lock.acquire().add_callback(reenter)
    lock.acquire().add_callback(lambda _: order.append("second"))
    lock.release()
    assert order == ["first", "second"]
    lock.release()
    assert order == ["first", "second", "newcomer"]


def test_giving_up_the_wait_leaves_the_line():
    """The next one moves up; a lock that is held already is not given back by a cancel."""
    lock = DeferredLock()
    held, gone, following = lock.acquire(), lock.acquire(), lock.acquire()
    gone.cancel()
    assert isinstance(error_of(gone), CancelledError)
    held.cancel()
    assert lock.locked
    lock.release()
    assert following.called


def test_run_holds_the_lock_until_the_functions_deferred_has_fired():
    """Then it is free, and the result goes on."""
    lock = DeferredLock()
    work: Deferred[int] = Deferred()
    done = lock.run(lambda n: work.add_callback(lambda m: n + m), 1)
    assert lock.locked
    work.callback(2)
    assert (lock.locked, done.result) == (False, 3)


def test_run_gives_the_lock_back_after_an_error():
    """Whether it is raised, or comes by Deferred, or by coroutine."""
    lock = DeferredLock()

    async def broken() -> None:
        raise KeyError

    def raising() -> None:
        raise KeyError

    for function in (raising, broken, lambda: fail(KeyError())):
        assert isinstance(error_of(lock.run(function)), KeyError)
        assert not lock.locked


def test_cancelling_a_run_cancels_the_wait_or_the_work():
    """Whichever it is at; the lock is free afterwards."""
    lock = DeferredLock()
    work: Deferred[None] = Deferred()
    running, waiting = lock.run(lambda: work), lock.run(pytest.fail, "was called")
    waiting.cancel()
    assert isinstance(error_of(waiting), CancelledError)
    running.cancel()
    assert isinstance(error_of(running), CancelledError)
    assert (work.called, lock.locked) == (True, False)


def test_many_in_line_do_not_recurse():
    """Each one releases as soon as it is served."""
    lock = DeferredLock()
    served: list[int] = []
    lock.acquire()
    for n in range(MANY):
        lock.run(served.append, n)
    lock.release()
    assert served == list(range(MANY))
    assert not lock.locked


def test_async_with_holds_it_for_the_block():
    """And gives it back after an error as well."""
    lock = DeferredLock()
    gate: Deferred[None] = Deferred()

    async def work() -> None:
        async with lock as held:
            assert held is lock
            await gate
            raise KeyError

    outer = ensure_deferred(work())
    assert lock.locked
    gate.callback(None)
    assert not lock.locked
    assert isinstance(error_of(outer), KeyError)


def test_too_many_releases_and_too_few_tokens_are_refused():
    """Either would let in more than meant, or nobody."""
    with pytest.raises(RuntimeError, match="more often"):
        DeferredLock().release()
    with pytest.raises(ValueError, match="at least one"):
        DeferredSemaphore(0)


def test_a_queue_gives_first_what_came_first():
    """To who waits longest."""
    queue: DeferredQueue[str] = DeferredQueue()
    first, second = queue.get(), queue.get()
    for item in "abc":
        queue.put(item)
    assert (first.result, second.result, queue.get().result) == ("a", "b", "c")
    assert (list(queue.pending), list(queue.waiting)) == ([], [])


def test_a_queue_refuses_what_is_beyond_its_limits():
    """Too many objects overflow it, too many takers underflow it."""
    queue: DeferredQueue[int] = DeferredQueue(size=1, backlog=1)
    waiting = queue.get()
    with pytest.raises(QueueUnderflow):
        queue.get()
    queue.put(1)
    queue.put(2)
    with pytest.raises(QueueOverflow):
        queue.put(3)
    assert (waiting.result, queue.get().result) == (1, 2)
    with pytest.raises(QueueOverflow):
        DeferredQueue(size=0).put(1)


def test_a_taker_who_gives_up_leaves_his_object_to_the_next():
    """Nothing is lost."""
    queue: DeferredQueue[int] = DeferredQueue()
    gone, following = queue.get(), queue.get()
    gone.cancel()
    assert isinstance(error_of(gone), CancelledError)
    queue.put(1)
    assert following.result == 1


def test_a_held_lock_can_be_handed_on_by_its_deferred():
    """`acquire` fires with the lock itself."""
    lock = DeferredLock()
    assert succeed(0).add_callback(lambda _: lock.acquire()).result is lock


def test_who_is_served_may_take_a_free_token_at_once():
    """Even in the midst of a release, if nobody waits."""
    lock = DeferredLock()
    seen: list[bool] = []
    lock.acquire()

    def again(_: object) -> None:
        lock.release()
        seen.append(lock.acquire().called)

    lock.acquire().add_callback(again)
    lock.release()
    assert (seen, lock.locked) == ([True], True)
