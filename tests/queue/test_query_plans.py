"""What the scheduler asks again and again never scans a backlog."""

from __future__ import annotations

from functools import partial

import apsw
import pytest

from service.queue import details, looking, settling, standing, suspects
from service.queue.schema import open_reader, open_writer


@pytest.mark.parametrize(
    ("query", "bindings"),
    [
        (settling._DUE, ("s", 1, 1.0, None, 9)),
        (suspects._WAITING, ("s", 1.0)),
        (suspects._AT_WORK, (1.0,)),
        (settling._LEASED, ("s", 1, 9)),
        (settling._WAITING, (1, "s")),
        (settling._STANDS, (1, "s", 1)),
        (looking.FIRST_DUE, ("s", 1)),
        (looking._OF_STATE, ("queued", 9)),
        (details.FACTS, (1.0, 1)),
        ("SELECT id FROM job WHERE inode = ? AND mtime_ns = ? AND octets = ? AND file = ?", (1, 2, 3, "f")),
        ("SELECT id FROM job WHERE key = ?", ("k",)),
        ("SELECT 1 FROM job WHERE result = ?", ("r",)),
        ("SELECT id FROM job WHERE finished_at < ? LIMIT ?", (1.0, 9)),
        ("SELECT min(job) FROM piece WHERE job > ?", (1,)),
        ("UPDATE delivery SET state = 0, lease = 0, due = min(due, ?) WHERE state = 1", (1.0,)),
    ],
)
def test_a_query_of_the_daemon_searches_and_does_not_sort(store, query, bindings):
    """Each step of its plan is a search by an index, none a scan of a table, none a sort."""
    plan = [row[3] for row in store._look.execute("EXPLAIN QUERY PLAN " + query, bindings)]
    assert plan
    searches = ("SEARCH", "CORRELATED SCALAR SUBQUERY")  # of which the steps follow
    assert all(step.startswith(searches) for step in plan), plan


@pytest.mark.parametrize("open_one", [open_writer, partial(open_reader, busy_timeout=0)])
def test_a_plan_is_made_once(tmp_path, open_one):
    """Other values do not make SQLite plan a statement anew, which would cost ten times what the statement does."""
    open_writer(tmp_path / "queue.db").close()
    connection = open_one(tmp_path / "queue.db")
    planned = []
    connection.set_authorizer(lambda *what: planned.append(what) or apsw.SQLITE_OK)  # asked while a plan is made
    connection.execute(settling._DUE, ("s", 1, 1.0, None, 9)).fetchall()
    assert planned
    planned.clear()
    connection.execute(settling._DUE, ("t", 2, 2.0, 1, 8)).fetchall()
    assert planned == []
    connection.close()


@pytest.mark.parametrize("query", [standing.ALL_SITES, standing.ONE_SITE])
def test_counting_the_sites_takes_one_walk_along_the_index(store, query):
    """It reads no table and sorts nothing: an operator may ask with a million messages waiting."""
    (step,) = [row[3] for row in store._look.execute("EXPLAIN QUERY PLAN " + query, (1.0, "s")[: query.count("?")])]
    assert "USING COVERING INDEX delivery_open" in step


def test_the_backlog_skips_from_site_to_site(reactor, store, submission):
    """Its cost is by sites, not by messages: a thousand at two sites are no more work than two."""

    def work():
        store._look.set_progress_handler(lambda: steps.append(1) or False, 1)
        steps = []
        assert len(store.backlog()) == 2
        store._look.set_progress_handler(None)
        return len(steps)

    reactor.wait(store.accept([submission(f"x@{'ab'[n % 2]}.example") for n in range(2)]))
    few = work()
    reactor.wait(store.accept([submission(f"x@{'ab'[n % 2]}.example") for n in range(1000)]))
    assert work() <= few


def test_counting_reads_the_tally(reactor, store, submission, settlement):
    """The tally agrees with what there is after jobs came, were held, ended and were forgotten."""
    done = reactor.wait(store.accept([submission(f"x@{n % 3}.example") for n in range(30)]))
    for claim in reactor.wait(store.claim("0.example", 30)):
        reactor.wait(store.settle([settlement(claim, "failed" if claim.id < done[9].id else "delivered")]))
    reactor.wait(store.change("hold", None, "1.example"))
    reactor.advance(1)
    reactor.wait(store.purge(reactor.wall_time()))
    reactor.wait(store.change("remove", [done[1].id], None))
    tally = dict(store._look.execute("SELECT state, jobs FROM tally WHERE jobs"))
    assert tally == dict(store._look.execute("SELECT state, count(*) FROM job GROUP BY state"))
    assert tally == {"queued": 10, "held": 9, "failed": 1}
    assert (store.count().queued, store.count().held) == (19, 9)
