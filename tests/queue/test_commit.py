"""Group commit when the disk fails: nothing is told, nothing is lost, nothing is done twice."""

from __future__ import annotations

import shutil

import apsw
import pytest

from service.queue import commit
from service.queue.commands import CommandStore
from service.queue.store import Source, StoreFailed


class BadDisk:
    """Stands for COMMIT: fails as often as told, before or after the transaction has reached the log."""

    def __init__(self, monkeypatch):
        self.left = 0
        self.reached = False
        self.error = apsw.IOError
        self.tries = 0
        self._good = commit._commit
        monkeypatch.setattr(commit, "_commit", self)

    def __call__(self, connection):
        self.tries += 1
        if not self.left:
            self._good(connection)
            return
        self.left -= 1
        if self.reached:
            self._good(connection)
        raise self.error("disk I/O error")


@pytest.fixture
def disk(monkeypatch):
    return BadDisk(monkeypatch)


def test_nobody_is_told_while_the_store_cannot_commit(reactor, store, submission, told, disk):
    """The job is accepted once the disk is well again; the trouble is told of once, and its end."""
    disk.left = 4
    fired = []
    store.accept([submission()]).add_callback(fired.append)
    reactor.advance(1)
    assert (fired, store.healthy, store.count().queued) == ([], False, 0)
    reactor.advance(60)
    assert len(fired) == 1
    assert store.healthy
    assert told.names() == ["store_failed", "store_recovered"]
    assert "disk I/O error" in told.of("store_failed")[0]["why"]


def test_long_trouble_is_told_of_again_each_minute(reactor, store, submission, told, disk):
    """Not at each try: they come every five seconds at last."""
    disk.left = 1000
    store.accept([submission()])
    reactor.advance(185)
    assert told.names() == ["store_failed"] * 4
    assert 35 < disk.tries < 50
    disk.left = 0


@pytest.mark.parametrize("reached", [False, True])
def test_a_commit_that_failed_and_came_back_is_not_done_twice(reactor, store, submission, settlement, disk, reached):
    """Whether or not the transaction reached the log: one job, one claim, one settlement, one report."""
    disk.reached = reached
    disk.left = 1
    [accepted] = reactor.wait(store.accept([submission()]), 1)
    assert (accepted.known, store.count().queued) == (False, 1)
    disk.left = 1
    [claim] = reactor.wait(store.claim("a.example", 5), 1)
    disk.left = 1
    done = settlement(claim, "failed", reports=(submission(name="bounce"),))
    [settled] = reactor.wait(store.settle([done]), 1)
    assert (settled.state, settled.reports) == ("failed", (store.list()[0].id,))
    assert [view.name for view in store.list()] == ["bounce"]
    assert store.show(accepted.id).attempts == 1
    disk.left = 1
    reactor.wait(store.probe().add_errback(lambda _: None), 1)


@pytest.mark.parametrize("reached", [False, True])
def test_a_settlement_that_came_back_has_its_result_written(reactor, store, submission, settlement, disk, reached):
    """What is known already at the next try has not been told to whoever writes results."""
    reactor.wait(store.accept([submission(source=Source("a.eml", 1, 2, 3))]))
    [claim] = reactor.wait(store.claim("a.example", 1))
    changed = []
    store.changed = changed.extend
    disk.reached, disk.left = reached, 1
    reactor.wait(store.settle([settlement(claim, "delivered")]), 1)
    assert [ended for _, ended in changed] == [True]
    assert len(store.owed_jobs(0, 5)) == 1


def test_a_source_that_came_back_is_known_to_the_next_daemon(reactor, open_store, submission, disk):
    """COMMIT reported an error and the daemon died: its file, still in new/, is not taken again."""
    store = open_store()
    disk.reached, disk.left = True, 1
    dropped = submission(source=Source("a.eml", 1, 2, 3))
    store.accept([dropped])
    reactor.turn()
    reactor.turn()
    reactor.turn()
    assert reactor.wait(open_store().accept([dropped]))[0].known


def test_what_comes_back_with_the_log_is_durable_before_it_is_relied_on(reactor, open_store, submission, tmp_path):
    """A log whose sync failed may be in memory only: the next daemon has it in the database, synced, first of all."""
    reactor.wait(open_store().accept([submission(source=Source("a.eml", 1, 2, 3))]))
    alone = tmp_path / "alone.db"
    shutil.copy(tmp_path / "queue.db", alone)
    assert jobs_in(alone) == []
    open_store()
    shutil.copy(tmp_path / "queue.db", alone)
    assert jobs_in(alone) == ["hello"]


def jobs_in(path):
    """The jobs in a database whose log is lost."""
    connection = apsw.Connection(str(path))
    connection.pragma("journal_mode", "delete")
    names = (
        [name for (name,) in connection.execute("SELECT name FROM job")] if connection.pragma("user_version") else []
    )
    connection.close()
    return names


def test_a_probe_fails_at_once(reactor, store, disk):
    """Who asks whether the store can be written does not wait until it can."""
    disk.left = 3
    with pytest.raises(StoreFailed, match="disk I/O error"):
        reactor.wait(store.probe())
    with pytest.raises(StoreFailed, match="disk I/O error"):
        reactor.wait(store.probe())
    reactor.advance(5)


def test_a_store_that_only_a_probe_found_failing_recovers(reactor, store, told, disk):
    """Nobody else has asked for anything, nor will while it is not healthy: it finds out by itself."""
    disk.left = 4
    assert reactor.wait(store.probe().add_errback(lambda failure: failure.value)).args
    reactor.advance(10)
    assert (store.healthy, told.names()) == (True, ["store_failed", "store_recovered"])
    reactor.wait(store.probe())


def test_a_store_that_is_closed_while_it_finds_out_whether_it_is_well_lets_go(reactor, open_store, disk):
    """What it asks of the disk by itself holds nobody up."""
    store = open_store()
    disk.left = 100
    reactor.wait(store.probe().add_errback(lambda failure: failure.value))
    reactor.advance(3)
    reactor.wait(store.close())


def test_operations_keep_their_order_through_trouble(reactor, store, submission, disk):
    """What was asked for meanwhile comes after the batch that failed."""
    disk.left = 2
    names = []
    for name in ("one", "two"):
        store.accept([submission(name=name)]).add_callback(lambda done: names.append(done[0].name))
    reactor.advance(0.15)
    store.accept([submission(name="three")]).add_callback(lambda done: names.append(done[0].name))
    reactor.advance(5)
    assert names == ["one", "two", "three"]


def test_a_lock_held_by_a_command_is_waited_for_without_blocking(reactor, store, submission, tmp_path, told):
    """The reactor goes on turning while another process writes; short of a few seconds it is no trouble."""
    other = apsw.Connection(str(tmp_path / "queue.db"))
    other.execute("BEGIN IMMEDIATE")
    fired = []
    store.accept([submission()]).add_callback(fired.append)
    reactor.advance(2)
    assert (fired, store.healthy) == ([], True)
    other.execute("COMMIT")
    other.close()
    reactor.advance(0.1)
    assert len(fired) == 1
    assert told.names() == []


def test_a_batch_is_bounded(reactor, store, submission, disk):
    """A thousand jobs asked for at once are spread over several transactions."""
    for n in range(1100):
        store.accept([submission(name=f"j{n}")])
    reactor.settle()
    assert disk.tries == 3
    assert store.count().queued == 1100


def test_a_store_that_fails_can_be_closed(reactor, open_store, submission, disk):
    """What could not be committed fails, and the store is let go of."""
    store = open_store()
    disk.left = 100
    accepted = store.accept([submission()])
    reactor.advance(3)
    closed = store.close()
    with pytest.raises(StoreFailed):
        reactor.wait(accepted)
    reactor.wait(closed)
    with pytest.raises(StoreFailed, match="closed"):
        reactor.wait(store.accept([submission()]))


def test_a_claim_that_comes_while_the_store_is_closed_can_still_be_given_back(reactor, open_store, submission):
    """Otherwise it would count as one that its daemon died over."""
    store = open_store()
    reactor.wait(store.accept([submission()]))
    given_back = []
    store.claim("a.example", 1).add_callback(store.unclaim).add_callback(given_back.append)
    closed = store.close()
    assert reactor.wait(store.accept([submission()]).add_errback(lambda failure: failure.value), 1).args
    reactor.wait(closed, 1)
    assert given_back == [["a.example"]]
    assert open_store().aftermath.in_flight == 0


def test_a_settlement_that_was_lost_with_its_commit_does_not_stand_for_a_removed_job(
    reactor, store, submission, settlement, disk
):
    """The COMMIT failed and did not come back, and a command removed the job before the next try: nothing is told."""
    [accepted] = reactor.wait(store.accept([submission()]))
    [claim] = reactor.wait(store.claim("a.example", 1))
    disk.left = 1
    settled = []
    store.settle([settlement(claim, "failed", reports=(submission(name="bounce"),))]).add_callback(settled.extend)
    reactor.settle()
    with CommandStore(store._path.parent, reactor.wall_time) as command:
        assert command.change("remove", [accepted.id]).changed == 1
    reactor.advance(5)
    assert [(one.state, one.reports) for one in settled] == [(None, ())]
    assert [view.name for view in store.list()] == []
