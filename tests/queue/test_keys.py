"""A key that was used before: the job is not taken again, and its result points to the first."""

from __future__ import annotations

import json

import pytest

from service.queue.layout import prepare
from service.queue.results import ResultWriter

WEEK = 7 * 86400


@pytest.fixture
def results(reactor, store, told, tmp_path):
    """The result files, by name, as they are now."""
    layout = prepare(tmp_path)
    ResultWriter(reactor, store, told.journal, layout).start()

    def read():
        reactor.advance(2)
        return {path.name: json.loads(path.read_text()) for path in layout.results.glob("*.json")}

    return read


def test_the_result_of_the_second_shows_how_the_first_stands(reactor, store, submission, settlement, results):
    """From its acceptance to its end, with the first one's id."""
    [first] = reactor.wait(store.accept([submission(key="k", name="order")]))
    [second] = reactor.wait(store.accept([submission(key="k", name="again")]))
    assert (second.known, second.id, second.name) == (True, first.id, "again")
    assert {name: (result["id"], result["state"]) for name, result in results().items()} == {
        "order.json": (first.id, "queued"),
        "again.json": (first.id, "queued"),
    }
    [claim] = reactor.wait(store.claim("a.example", 5))
    reactor.wait(store.settle([settlement(claim)]))
    found = results()
    assert found["again.json"] == found["order.json"]
    assert found["again.json"]["state"] == "delivered"


def test_a_job_that_has_ended_is_shown_at_once(reactor, store, submission, settlement, results):
    """A day later, after a restart perhaps: the second has its result, and nothing is sent."""
    [first] = reactor.wait(store.accept([submission(key="k", name="order")]))
    [claim] = reactor.wait(store.claim("a.example", 5))
    reactor.wait(store.settle([settlement(claim)]))
    results()
    reactor.advance(86400)
    reactor.wait(store.accept([submission(key="k", name="again")]))
    assert results()["again.json"]["id"] == first.id
    assert reactor.wait(store.claim("a.example", 5)) == []


def test_the_same_name_again_is_the_same_result(reactor, store, submission, results, tmp_path):
    """The application drops the same file again, having removed the result perhaps: it is written anew."""
    reactor.wait(store.accept([submission(key="k", name="order")]))
    assert set(results()) == {"order.json"}
    reactor.wait(store.accept([submission(key="k", name="order", name_taken=True)]))
    assert set(results()) == {"order.json"}
    (tmp_path / "results" / "order.json").unlink()
    reactor.wait(store.accept([submission(key="k", name="order")]))
    assert set(results()) == {"order.json"}
    reactor.wait(store.accept([submission(key="k", name="again")]))
    reactor.wait(store.accept([submission(key="k", name="again", name_taken=True)]))
    assert set(results()) == {"order.json", "again.json"}


def test_a_name_that_is_another_jobs_is_not_taken_from_it(reactor, store, submission, results):
    """The second gets NAME-ID, as any job whose name is taken; and a later job does not take its name either."""
    [first] = reactor.wait(store.accept([submission(key="k", name="order")]))
    [other] = reactor.wait(store.accept([submission(name="other")]))
    [second] = reactor.wait(store.accept([submission(key="k", name="other", name_taken=True)]))
    assert second.name.startswith("other-")
    [third] = reactor.wait(store.accept([submission(name=second.name)]))
    found = results()
    assert found["other.json"]["id"] == other.id
    assert found[f"{second.name}.json"]["id"] == first.id
    assert found[f"{third.name}.json"]["id"] == third.id


def test_a_name_is_free_again_once_its_result_was_read_and_removed(
    reactor, store, submission, settlement, results, tmp_path
):
    """Also one that only pointed to another job."""
    reactor.wait(store.accept([submission(key="k", name="order")]))
    [claim] = reactor.wait(store.claim("a.example", 5))
    reactor.wait(store.settle([settlement(claim)]))
    reactor.wait(store.accept([submission(key="k", name="again")]))
    assert "again.json" in results()
    (tmp_path / "results" / "again.json").unlink()
    [third] = reactor.wait(store.accept([submission(name="again")]))
    assert third.name == "again"
    assert results()["again.json"]["id"] == third.id


def test_both_results_are_forgotten_together(reactor, store, submission, settlement, results):
    """A week after the first job's end; until then the name is known."""
    reactor.wait(store.accept([submission(key="k", name="order"), submission(key="k", name="again")]))
    [claim] = reactor.wait(store.claim("a.example", 5))
    reactor.wait(store.settle([settlement(claim)]))
    results()
    assert store.keeps("again")
    reactor.advance(WEEK + 60)
    gone = reactor.wait(store.purge(reactor.wall_time() - WEEK))
    assert sorted(gone) == ["again", "order"]
    assert not store.keeps("again")


def test_a_failed_commit_that_came_back_makes_no_second_alias(reactor, store, submission, results, monkeypatch):
    """Tried again, it finds what it has done."""
    from service.queue import commit

    reactor.wait(store.accept([submission(key="k", name="order"), submission(name="other")]))
    good, failures = commit._commit, iter([True])

    def reach_and_fail(connection):
        good(connection)
        if next(failures, False):
            raise commit.apsw.IOError("disk I/O error")

    monkeypatch.setattr(commit, "_commit", reach_and_fail)
    [second] = reactor.wait(store.accept([submission(key="k", name="other")]), 1)
    assert sorted(results()) == sorted(["order.json", "other.json", f"{second.name}.json"])


def test_a_repeated_key_does_not_bring_back_results_that_were_removed(
    reactor, store, submission, settlement, results, tmp_path
):
    """Only its own is written: the application has read the others, and their names are free for other jobs."""
    reactor.wait(store.accept([submission(key="k", name="order"), submission(key="k", name="again")]))
    [claim] = reactor.wait(store.claim("a.example", 5))
    reactor.wait(store.settle([settlement(claim)]))
    for name in results():
        (tmp_path / "results" / name).unlink()
    reactor.wait(store.accept([submission(key="k", name="third")]))
    assert set(results()) == {"third.json"}
    [new] = reactor.wait(store.accept([submission(name="order")]))
    assert new.name == "order"
    assert results()["order.json"]["id"] == new.id


def test_a_thousand_aliases_are_written_each_once(reactor, store, submission, settlement, results, monkeypatch):
    """All of them show how the one job ended."""
    from service.queue import results as results_module

    written = []
    write = results_module.write_result

    def note(directory, owed):
        written.append(owed.name)
        write(directory, owed)

    reactor.wait(store.accept([submission(key="k", name=f"order-{n}") for n in range(1000)]), 5)
    monkeypatch.setattr(results_module, "write_result", note)
    [claim] = reactor.wait(store.claim("a.example", 5))
    reactor.wait(store.settle([settlement(claim)]), 20)
    assert sorted(written) == sorted(f"order-{n}" for n in range(1000))
    assert all(result["state"] == "delivered" for result in results().values())


def test_a_dropped_file_that_was_an_alias_is_known_again(reactor, open_store, submission, settlement):
    """Also when its key has been forgotten, as long as it is there: it may never leave new/."""
    there = submission(key="k", name="again")
    store = open_store(present=lambda source: source == there.source)
    reactor.wait(store.accept([submission(key="k", name="order")]))
    [claim] = reactor.wait(store.claim("a.example", 5))
    reactor.wait(store.settle([settlement(claim)]))
    [second] = reactor.wait(store.accept([there]))
    assert reactor.wait(store.accept([there]))[0].known
    reactor.advance(WEEK + 60)
    reactor.wait(store.purge(reactor.wall_time() - WEEK))
    store = open_store()
    [third] = reactor.wait(store.accept([there]))
    assert (third.known, third.id) == (True, second.id)
    assert reactor.wait(store.claim("a.example", 5)) == []


def test_a_file_that_is_called_as_a_result_would_be_is_in_nobodys_way(
    reactor, store, submission, settlement, results, tmp_path
):
    """Somebody drops NAME-ID.eml before the NAME that wants it for its former job."""
    [first] = reactor.wait(store.accept([submission(name="order")]))
    [claim] = reactor.wait(store.claim("a.example", 5))
    reactor.wait(store.settle([settlement(claim)]))
    results()
    reactor.wait(store.accept([submission(name=f"order-{first.id}")]))
    (tmp_path / "results" / "order.json").unlink()
    [third] = reactor.wait(store.accept([submission(name="order")]))
    assert third.name == "order"
    assert results()["order.json"]["id"] == third.id
