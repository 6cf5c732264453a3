"""Result files: what the application reads."""

from __future__ import annotations

import contextlib
import itertools
import json
import os

import pytest

from deferred.defer import Deferred
from service.queue import results as results_module
from service.queue.layout import prepare
from service.queue.results import ResultWriter


@pytest.fixture
def layout(tmp_path):
    return prepare(tmp_path)


@pytest.fixture
def writer(reactor, store, told, layout):
    writer = ResultWriter(reactor, store, told.journal, layout)
    writer.start()
    reactor.settle()
    return writer


@pytest.fixture
def written(monkeypatch):
    """The names of the results written, in order."""
    names = []
    write = results_module.write_result

    def note(directory, owed):
        names.append(owed.name)
        write(directory, owed)

    monkeypatch.setattr(results_module, "write_result", note)
    return names


def read(layout, name="hello"):
    return json.loads((layout.results / f"{name}.json").read_text())


def test_a_result_has_the_contracts_members(reactor, store, writer, layout, submission, settlement, outcome):
    """All of them, by their names, for a job in the middle of its life."""
    people = ("ann@a.example", "bob@a.example")
    [accepted] = reactor.wait(store.accept([submission(*people, "eve@b.example", tags={"order": 17})]))
    [claim] = reactor.wait(store.claim("a.example", 1))
    mixed = (outcome(people[0], "delivered", 250, "ok"), outcome(people[1], "waiting", 450, "later"))
    reactor.wait(store.settle([settlement(claim, "waiting", outcomes=mixed)]), 2)
    tried = {"enhanced": "2.0.0", "host": "mx:25", "phase": "confirm", "at": "2026-09-21T14:13:20.000Z"}
    untried = dict.fromkeys(("code", "enhanced", "text", "host", "phase", "at"))
    assert read(layout) == {
        "id": accepted.id,
        "name": "hello",
        "state": "queued",
        "attempts": 1,
        "next_attempt": "2026-09-21T14:13:20.000Z",
        "recipients": [
            {"address": people[0], "state": "delivered", "code": 250, "text": "ok", **tried},
            {"address": people[1], "state": "waiting", "code": 450, "text": "later", **tried},
            {"address": "eve@b.example", "state": "waiting", **untried},
        ],
        "accepted_at": "2026-09-21T14:13:20.000Z",
        "finished_at": None,
        "tags": {"order": 17},
    }


def test_a_result_appears_a_second_after_acceptance(reactor, store, writer, layout, submission):
    """It says that the job is queued."""
    reactor.wait(store.accept([submission()]), 0.9)
    assert list(layout.results.iterdir()) == []
    reactor.advance(0.2)
    assert read(layout)["state"] == "queued"


def test_a_job_that_ends_within_a_second_has_its_final_result_only(
    reactor, store, writer, layout, submission, settlement, written
):
    """One file, written once, soon after the end."""
    reactor.wait(store.accept([submission()]), 0.3)
    [claim] = reactor.wait(store.claim("a.example", 1))
    reactor.wait(store.settle([settlement(claim)]), 0.1)
    assert (read(layout)["state"], written) == ("delivered", ["hello"])
    reactor.advance(5)
    assert written == ["hello"]


def test_results_are_written_and_paid_for_in_batches(reactor, store, writer, layout, submission, monkeypatch):
    """A hundred a turn at most; two hundred and fifty jobs cost three commits, and none is owed any more."""
    paid = []
    reported = store.reported
    monkeypatch.setattr(store, "reported", lambda written: (paid.append(len(written)), reported(written))[1])
    reactor.wait(store.accept([submission(name=f"j{n}") for n in range(250)]), 3)
    assert paid == [100, 100, 50]
    assert store.owed_jobs(0, 10) == []


def test_writing_leaves_the_reactor_to_others(reactor, store, writer, layout, submission, monkeypatch):
    """A disk that hangs holds up a thread, with one batch; deliveries go on, and so do the results once it is back."""
    hanging = []
    in_thread = reactor.defer_to_thread

    def defer_to_thread(function, *args):
        if function is not results_module.write_results:
            return in_thread(function, *args)
        hanging.append((Deferred(), function, args))
        return hanging[-1][0]

    monkeypatch.setattr(reactor, "defer_to_thread", defer_to_thread)
    reactor.wait(store.accept([submission(name=f"j{n}") for n in range(10)]), 2)
    reactor.wait(store.accept([submission(name=f"k{n}") for n in range(10)]), 2)
    assert (len(hanging), list(layout.results.iterdir())) == (1, [])
    [claim] = reactor.wait(store.claim("a.example", 1))
    assert claim.name == "j0"
    while hanging:
        d, function, args = hanging.pop()
        d.callback(function(*args))
        reactor.settle()
    assert len(list(layout.results.iterdir())) == 20


def test_in_a_burst_mail_goes_first(reactor, store, writer, layout, submission, settlement):
    """While jobs end by the hundreds a second their results wait, for ten seconds at most."""

    def burst(seconds):
        for _ in range(round(seconds * 10)):
            reactor.wait(store.accept([submission(name=f"j{next(names)}") for _ in range(60)]))
            reactor.wait(store.settle([settlement(claim) for claim in reactor.wait(store.claim("a.example", 60))]))
            reactor.advance(0.1)

    names = itertools.count()
    burst(0.3)
    soon = len(list(layout.results.iterdir()))
    burst(9.5)
    assert len(list(layout.results.iterdir())) == soon < 200
    burst(1.0)
    assert len(list(layout.results.iterdir())) > soon
    reactor.advance(3.0)
    assert len(list(layout.results.iterdir())) == next(names)


def test_bursts_with_short_lulls_between_do_not_put_results_off_for_ever(
    reactor, store, writer, layout, submission, settlement, monkeypatch
):
    """Each lull is too short for what has gathered, where a file takes the disk some time."""
    in_thread = reactor.defer_to_thread

    def defer_to_thread(function, *args):
        d = in_thread(function, *args)
        if function is not results_module.write_results:
            return d
        late = Deferred()
        reactor.call_later(0.1, d.add_callback, late.callback)
        return late

    monkeypatch.setattr(reactor, "defer_to_thread", defer_to_thread)
    names = itertools.count()
    latest = 0
    for tenth in range(300):
        if tenth % 50 < 46:  # the lull takes 0.4 s
            reactor.wait(store.accept([submission(name=f"j{next(names)}") for _ in range(60)]))
            reactor.wait(store.settle([settlement(claim) for claim in reactor.wait(store.claim("a.example", 60))]))
        reactor.advance(0.1)
        missing = 60 * (tenth - tenth // 50 * 4) - len(list(layout.results.iterdir()))
        latest = max(latest, missing / 600)
    assert latest < 13.0  # seconds, about


def test_what_a_dead_daemon_owed_is_written_at_the_next_start(
    reactor, open_store, told, layout, submission, settlement
):
    """Queued and ended jobs alike."""
    store = open_store()
    reactor.wait(store.accept([submission(name=f"j{n}") for n in range(150)]))
    [claim] = reactor.wait(store.claim("a.example", 1))
    reactor.wait(store.settle([settlement(claim)]))
    again = open_store()
    ResultWriter(reactor, again, told.journal, layout).start()
    reactor.advance(2)
    assert len(list(layout.results.iterdir())) == 150
    assert read(layout, claim.name)["state"] == "delivered"
    assert again.owed_jobs(0, 10) == []


def test_a_result_that_cannot_be_written_is_written_later(reactor, store, writer, layout, submission, told):
    """The trouble is told of once, and the other results do not wait for it."""
    (layout.results / "bad.json").mkdir()
    reactor.wait(store.accept([submission(name="bad"), submission(name="good")]), 30)
    reactor.wait(store.accept([submission(name="later")]), 1.1)
    assert read(layout, "good")["state"] == read(layout, "later")["state"] == "queued"
    assert told.names() == ["result_failed"]
    assert told.of("result_failed")[0]["name"] == "bad"
    (layout.results / "bad.json").rmdir()
    reactor.advance(61)
    assert read(layout, "bad")["state"] == "queued"
    assert not any(path.name.endswith(".tmp") for path in layout.results.iterdir())


def test_results_are_made_again_where_somebody_has_removed_the_folder(reactor, store, writer, layout, submission, told):
    """The first that finds it missing is told of, and comes later."""
    layout.results.rmdir()
    reactor.wait(store.accept([submission(name="one"), submission(name="two")]), 30)
    assert [read(layout, name)["state"] for name in ("one", "two")] == ["queued", "queued"]
    assert len(told.of("result_failed")) == 1


def test_a_command_s_change_is_shown_once_the_daemon_is_poked(reactor, store, writer, layout, submission):
    """`start` again reads what is owed by other hands."""
    from service.queue.commands import open_for_commands

    [accepted] = reactor.wait(store.accept([submission()]), 2)
    with open_for_commands(layout.directory, reactor.wall_time) as commands:
        commands.change("hold", [accepted.id])
    writer.start()
    reactor.advance(1)
    assert read(layout)["state"] == "held"


def test_the_last_results_are_written_before_the_end(reactor, store, writer, layout, submission):
    """Stopping does not wait for the second to pass."""
    reactor.wait(store.accept([submission()]))
    reactor.wait(writer.stop())
    assert read(layout)["state"] == "queued"


def test_stopping_does_not_wait_for_a_full_disk(reactor, store, writer, layout, submission):
    """What could not be written is still owed."""
    (layout.results / "hello.json").mkdir()
    reactor.wait(store.accept([submission()]), 3)
    reactor.wait(writer.stop())
    assert len(store.owed_jobs(0, 10)) == 1


def test_old_results_and_rejected_files_go(reactor, store, writer, layout, submission, settlement):
    """Results of forgotten jobs, and rejected files by the time of their note; a waiting job's result stays."""
    reactor.wait(store.accept([submission(), submission("y@b.example", name="open")]), 2)
    [claim] = reactor.wait(store.claim("a.example", 1))
    reactor.wait(store.settle([settlement(claim)]), 2)
    for name in ("old.eml", "old.eml.why", "new.eml", "new.eml.why", "dir.eml.why"):
        (layout.rejected / name).write_text("x")
    (layout.rejected / "dir.eml").mkdir()
    (layout.rejected / "dir.eml" / "more").write_text("x")
    for path in (*layout.results.iterdir(), *layout.rejected.iterdir()):
        if path.name != "new.eml.why":
            os.utime(path, (1000, 1000))
    reactor.wait(store.purge(reactor.wall_time()))
    reactor.wait(writer.purge(2000))
    assert [path.name for path in layout.results.iterdir()] == ["open.json"]
    assert sorted(path.name for path in layout.rejected.iterdir()) == ["new.eml", "new.eml.why"]


def test_a_report_to_a_sender_has_no_result(reactor, store, writer, layout, submission, settlement):
    """Nobody waits for what became of a bounce."""
    reactor.wait(store.accept([submission()]))
    [claim] = reactor.wait(store.claim("a.example", 1))
    bounce = submission("shop@example.org", name="bounce", source=None, result=False)
    reactor.wait(store.settle([settlement(claim, "failed", reports=(bounce,))]), 3)
    assert len(store.list()) == 1
    [claim] = reactor.wait(store.claim("example.org", 1))
    reactor.wait(store.settle([settlement(claim)]), 3)
    assert [path.name for path in layout.results.iterdir()] == ["hello.json"]


def test_a_name_is_free_again_once_its_result_was_read_and_removed(
    reactor, store, writer, submission, layout, settlement
):
    """An application that removes each result finds the next job of the same name under the same name."""
    [first] = reactor.wait(store.accept([submission()]))
    [claim] = reactor.wait(store.claim("a.example", 5))
    reactor.wait(store.settle([settlement(claim)]))
    reactor.advance(2)
    (layout.results / "hello.json").unlink()
    [second] = reactor.wait(store.accept([submission()]))
    assert second.name == "hello"
    assert store.show(first.id).name == "hello"
    assert store.show(first.id).state == "delivered"


def test_what_vanishes_during_a_purge_stops_nothing(reactor, writer, layout, monkeypatch):
    """An application removes its results whenever it likes; the other old ones go all the same."""
    for name in ("gone", "old"):
        (layout.results / f"{name}.json").write_text("x")
        os.utime(layout.results / f"{name}.json", (1000, 1000))
    scandir = os.scandir

    def scan_and_lose(path):
        with scandir(path) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        (layout.results / "gone.json").unlink(missing_ok=True)
        return contextlib.nullcontext(found)

    monkeypatch.setattr(os, "scandir", scan_and_lose)
    reactor.wait(writer.purge(2000))
    assert list(layout.results.iterdir()) == []


def test_rejected_files_go_where_results_cannot_be_looked_through(reactor, writer, layout):
    """Neither waits for the other."""
    for name in ("old.eml", "old.eml.why"):
        (layout.rejected / name).write_text("x")
        os.utime(layout.rejected / name, (1000, 1000))
    layout.results.rmdir()
    with pytest.raises(FileNotFoundError):
        reactor.wait(writer.purge(2000))
    assert list(layout.rejected.iterdir()) == []


def test_a_purge_asks_the_store_a_little_a_turn(reactor, store, writer, layout, monkeypatch):
    """However many results there are."""
    for n in range(1200):
        (layout.results / f"n{n}.json").write_text("x")
        os.utime(layout.results / f"n{n}.json", (1000, 1000))
    asked = {}
    monkeypatch.setattr(
        store, "keeps", lambda name: asked.__setitem__(reactor.turns, asked.get(reactor.turns, 0) + 1) or name == "n7"
    )
    reactor.wait(writer.purge(2000))
    assert sorted(asked.values()) == [200, 500, 500]
    assert [path.name for path in layout.results.iterdir()] == ["n7.json"]


def test_a_result_written_anew_during_a_purge_stays(reactor, store, writer, layout, monkeypatch):
    """Its name has become a new job's since the store was asked."""
    (layout.results / "x.json").write_text("old")
    os.utime(layout.results / "x.json", (1000, 1000))
    monkeypatch.setattr(store, "keeps", lambda _: bool((layout.results / "x.json").write_text("new")) and False)
    reactor.wait(writer.purge(2000))
    assert (layout.results / "x.json").read_text() == "new"
