"""The queue as a command sees it, beside a running daemon or without one."""

from __future__ import annotations

import apsw
import pytest

from service.queue import changing
from service.queue.commands import Done, open_for_commands
from service.queue.details import JobSite
from service.queue.ids import id_number
from service.queue.standing import RestView, SiteStanding
from service.queue.store import Pace, Rest, StoreFailed, UnknownJob

NOW = "2026-09-21T14:13:20.000Z"
MINUTE = "2026-09-21T14:14:20.000Z"
DAY = 86400.0


@pytest.fixture
def commands(reactor, store, submission, tmp_path):
    reactor.wait(store.accept([submission("x@a.example", name="one"), submission("x@b.example", name="two")]))
    with open_for_commands(tmp_path, reactor.wall_time) as commands:
        yield commands


def test_a_command_looks(commands):
    """List, show and count."""
    one, two = commands.list()
    assert (one.name, two.name) == ("one", "two")
    assert commands.show(two.id, DAY).name == "two"
    assert commands.show("nonsense", DAY) is None
    assert [view.name for view in commands.list(site="b.example", state="queued")] == ["two"]
    assert commands.count().queued == 2


def test_a_command_s_change_is_the_daemons_at_once(reactor, store, commands):
    """It is in the one store: what is held is not claimed, and the sites to retry are remembered."""
    one, two = commands.list()
    assert commands.change("hold", site="a.example").changed == 1
    assert reactor.wait(store.claim("a.example", 1)) == []
    assert commands.change("release").changed == 1
    assert commands.change("retry", [one.id, one.id, two.id.upper()]).changed == 2
    assert reactor.wait(store.retried()) == ["a.example", "b.example"]
    assert commands.change("remove").changed == 2
    assert store.count().queued == 0


def test_an_unknown_id_changes_nothing(commands):
    """As for the daemon."""
    with pytest.raises(UnknownJob, match="nothere"):
        commands.change("remove", [commands.list()[0].id, "nothere"])
    assert commands.count().queued == 2


def test_what_a_change_leaves_as_it_is_has_its_reason(reactor, store, commands):
    """Of those that were named, each has its own; of many it is told how many there are."""
    one, two = (job.id for job in commands.list())
    assert commands.change("hold", [one]) == Done(1, 0, {}, (one,))
    assert commands.change("hold", [one, two]) == Done(1, 1, {one: "held already"}, (one, two))
    assert commands.change("retry", [two, one]) == Done(
        0, 2, dict.fromkeys((two, one), "held: release it first"), (two, one)
    )
    assert commands.change("retry") == Done(0, 2, {})
    assert commands.change("release", [one]) == Done(1, 0, {}, (one,))
    assert commands.change("release", [one, two]) == Done(1, 1, {one: "not held"}, (one, two))


def test_a_job_that_has_ended_is_not_in_the_queue_any_more(reactor, store, commands, settlement, monkeypatch):
    """It is said how it ended, also where it did so while the change was on its way to it."""
    one = commands.list()[0].id
    (claim,) = reactor.wait(store.claim("a.example", 1))
    reactor.wait(store.settle([settlement(claim)]))
    with pytest.raises(UnknownJob, match=rf"{one} is not in the queue: it has ended \(delivered\)"):
        commands.change("retry", [one])
    monkeypatch.setattr(changing, "jobs_to_change", lambda *_: [id_number(one)])
    assert commands.change("retry", [one]) == Done(0, 1, {one: "ended meanwhile (delivered)"}, (one,))
    assert commands.change("retry") == Done(0, 0, {})  # where all were meant it is none of them


def test_a_list_tells_what_is_in_flight_and_what_goes_first(reactor, store, submission, commands):
    """Beside what results tell. A job that has ended is neither."""
    reactor.wait(store.accept([submission("x@c.example", name="news", priority="bulk")]))
    one, _, _ = commands.list()
    commands.change("remove", site="b.example")
    reactor.wait(store.claim("a.example", 1))
    assert [(job.name, job.in_flight, job.priority) for job in commands.list()] == [
        ("one", True, "normal"), ("news", False, "bulk"),
    ]  # fmt: skip
    assert [(job.name, job.in_flight, job.priority) for job in commands.list(state="failed")] == [("two", False, None)]
    commands.change("hold", [one.id])
    assert (commands.list()[0].state, commands.list()[0].in_flight) == ("held", True)


def test_a_list_tells_what_a_job_waits_for(reactor, store, submission, commands, settlement):
    """Its hour, its next try, a site's rest or rate, an operator: of what keeps it from being tried now, the last."""
    one, two = commands.list()
    now = reactor.wall_time()

    def told(id):
        assert commands.show(id, DAY).waits == next(job.waits for job in commands.list() if job.id == id)
        return commands.show(id, DAY).waits

    def rest(seconds):
        rests = Rest(site="a.example", ends=now + seconds, failures=1, since=now, why="connect: refused")
        reactor.wait(store.notes.note_rest(rests))

    def pace(seconds):
        reactor.wait(store.notes.note_pace(Pace(site="a.example", rate=0.5, next=now + seconds)))

    assert told(one.id) is None
    pace(60)
    assert told(one.id) == "its turn: its site is given 30 a minute"
    rest(50)
    assert told(one.id) == "its turn: its site is given 30 a minute"
    rest(70)
    assert told(one.id) == "its site, which rests: connect: refused"
    (claim,) = reactor.wait(store.claim("a.example", 1))
    assert told(one.id) is None
    reactor.wait(store.settle([settlement(claim, "waiting", due=now + 80)]))
    assert told(one.id) == "its next try"
    commands.change("hold", [two.id])
    assert told(two.id) == "an operator: release or remove it"
    [later] = reactor.wait(store.accept([submission("x@a.example", not_before=now + 75)]))
    assert told(later.id) == f"its not_before, {MINUTE.replace('14:20', '14:35')}"
    commands.change("retry", [later.id])
    assert told(later.id) == "its site, which rests: connect: refused"
    reactor.advance(75)
    assert (told(one.id), told(later.id)) == ("its next try", None)
    (claim,) = reactor.wait(store.claim("a.example", 1))
    assert claim.id == later.id
    reactor.wait(store.settle([settlement(claim, "waiting", due=now + 90)]))
    assert told(later.id) == "its next try"
    rest(200)
    reactor.advance(10)
    (claim,) = reactor.wait(store.claim("a.example", 1))
    reactor.wait(store.settle([settlement(claim, "waiting", due=now + 200.1, rested=True)]))
    assert told(claim.id) == "its site, which rests: connect: refused"


def test_what_a_job_waits_for_is_told_by_the_time_that_really_passes(reactor, store, commands):
    """A wall clock that was set a day ahead ends no rest."""
    now = reactor.wall_time()
    rest = Rest(site="a.example", ends=now + 60, failures=1, since=now, why="connect: refused")
    reactor.wait(store.notes.note_rest(rest))
    reactor.set_wall_time(now + DAY)
    store.now()
    reactor.advance(1)
    one = commands.list()[0]
    assert one.waits == commands.show(one.id, DAY).waits == "its site, which rests: connect: refused"


def test_the_details_of_a_job(reactor, store, submission, commands, settlement):
    """Its envelope's sender, its size, when it is given up, and how its message at each site stands."""
    recipients = ("x@b.example", "y@c.example", "z@d.example", "u@b.example")
    order = submission(*recipients, name="order", key="order-17", expires=DAY, in_doubt="hold", priority="high")
    (accepted,) = reactor.wait(store.accept([order]))
    (claim,) = reactor.wait(store.claim("d.example", 1))
    reactor.wait(store.settle([settlement(claim)]))
    (claim,) = reactor.wait(store.claim("c.example", 1))
    reactor.wait(store.settle([settlement(claim, "waiting", doubt=True)]))
    reactor.wait(store.claim("b.example", 2))
    job = commands.show(accepted.id, 5 * DAY)
    assert (job.sender, job.size, job.key, job.in_doubt) == ("shop@example.org", 21, "order-17", "hold")
    assert (job.priority, job.in_flight, job.expires_at) == ("high", True, "2026-09-22T14:13:20.000Z")
    assert job.sites == (
        JobSite(site="b.example", state="in_flight", attempts=0, next_attempt=None, doubts=0, rests=None),
        JobSite(site="c.example", state="waiting", attempts=1, next_attempt=MINUTE, doubts=1, rests=None),
        JobSite(site="d.example", state="done", attempts=None, next_attempt=None, doubts=None, rests=None),
    )
    commands.change("hold", site="c.example")
    assert commands.show(accepted.id, DAY).sites[1].state == "held"


def test_a_job_is_found_by_the_name_of_its_result(reactor, store, submission, commands):
    """Which its application knows; also one whose key was used before. Who has a name that is an id comes second."""
    first, second = (submission("x@c.example", name=name, key="k") for name in ("first", "second"))
    (accepted,) = reactor.wait(store.accept([first]))
    reactor.wait(store.accept([second, submission("x@c.example", name=accepted.id)]))
    assert {commands.show(name, DAY).id for name in ("first", "second", accepted.id)} == {accepted.id}
    assert commands.show("third", DAY) is None


def test_what_waits_for_a_site_that_rests_is_tried_when_the_rest_is_over(reactor, store, commands):
    """Not when it would be due by itself, also where it was another message that met the failure."""
    now = reactor.wall_time()
    reactor.wait(
        store.notes.note_rest(Rest(site="a.example", ends=now + 60, failures=1, since=now, why="connect: refused"))
    )
    job, other = commands.list()
    assert (job.next_attempt, other.next_attempt) == (MINUTE, NOW)
    (site,) = commands.show(job.id, DAY).sites
    assert (site.next_attempt, site.rests) == (MINUTE, "connect: refused")
    assert commands.standing("a.example").sites[0].next_due == MINUTE
    reactor.wait(store.claim("a.example", 1))
    (site,) = commands.show(job.id, DAY).sites
    assert (commands.list()[0].next_attempt, site.next_attempt, site.rests) == (NOW, None, None)


def test_what_waits_for_its_turn_at_a_site_with_a_rate_is_not_due(reactor, store, commands):
    """It is tried when the site may have a message again, at the earliest; until then nothing there is due."""
    now = reactor.wall_time()
    for site in ("a.example", "quiet.example"):
        reactor.wait(store.notes.note_pace(Pace(site=site, rate=0.5, next=now + 60)))
    job, other = commands.list()
    assert (job.next_attempt, other.next_attempt) == (MINUTE, NOW)
    (site,) = commands.show(job.id, DAY).sites
    assert (site.next_attempt, site.rate, site.rests) == (MINUTE, 0.5, None)
    assert commands.show(other.id, DAY).sites[0].rate is None
    assert commands.standing().sites == (
        SiteStanding(site="a.example", waiting=1, next_due=MINUTE, rate=0.5),
        SiteStanding(site="b.example", waiting=1, due_now=1, next_due=NOW),
    )
    reactor.advance(60)
    (site,) = commands.standing("a.example").sites
    assert (site.due_now, site.next_due, site.rate) == (1, MINUTE, 0.5)


def test_of_a_rest_and_a_rate_the_later_counts(reactor, store, commands):
    """Whichever it is."""
    now = reactor.wall_time()
    for ends, then in ((now + 60, now + 30), (now + 30, now + 60)):
        reactor.wait(store.notes.note_rest(Rest(site="a.example", ends=ends, failures=1, since=now, why="refused")))
        reactor.wait(store.notes.note_pace(Pace(site="a.example", rate=0.5, next=then)))
        job = commands.list()[0]
        told = job.next_attempt, commands.show(job.id, DAY).sites[0].next_attempt, commands.standing().sites[0].next_due
        assert told == (MINUTE, MINUTE, MINUTE)


def test_a_job_without_an_end_of_its_own_is_given_up_by_the_configuration(commands):
    """So long after it began."""
    job = commands.list()[0]
    assert commands.show(job.id, 2 * DAY).expires_at == "2026-09-23T14:13:20.000Z"


def test_sites_are_counted(reactor, store, submission, commands):
    """What waits, what of it is due, what is in flight and what is held; those with most mail come first."""
    later = [submission(f"{n}@b.example", not_before=reactor.wall_time() + 60) for n in range(2)]
    reactor.wait(store.accept([*later, *(submission(f"{n}@c.example") for n in range(2))]))
    reactor.wait(store.claim("c.example", 1))
    commands.change("hold", [commands.list(site="b.example")[0].id])
    standing = commands.standing()
    assert standing.jobs == {"queued": 5, "held": 1, "delivered": 0, "failed": 0, "partly": 0}
    assert standing.sites == (
        SiteStanding(site="b.example", waiting=2, held=1, next_due=MINUTE),
        SiteStanding(site="c.example", waiting=1, due_now=1, in_flight=1, next_due=NOW),
        SiteStanding(site="a.example", waiting=1, due_now=1, next_due=NOW),
    )
    one = commands.standing("b.example")
    assert (one.jobs, one.sites) == (None, standing.sites[:1])
    assert commands.standing("nowhere.example").sites == ()


def test_a_site_tells_its_rest(reactor, store, commands):
    """Until when and why; also one without mail; and one whose rest is over but that has not served since."""
    now = store.now()
    for site, ends in (("b.example", now + 60), ("dead.example", now + 60)):
        reactor.wait(store.notes.note_rest(Rest(site=site, ends=ends, failures=3, since=now, why="connect: refused")))
    rest = RestView(until=MINUTE, failures=3, since=NOW, why="connect: refused")
    assert [(one.site, one.rest) for one in commands.standing().sites] == [
        ("a.example", None), ("b.example", rest), ("dead.example", rest),
    ]  # fmt: skip
    assert [one.site for one in commands.standing("b.example").sites] == ["b.example"]
    reactor.advance(60)
    assert commands.standing("b.example").sites[0].rest.until is None
    reactor.wait(store.notes.forget_rest("b.example"))
    assert commands.standing("b.example").sites[0].rest is None


def test_what_is_due_is_told_by_the_time_that_really_passes(reactor, store, submission, commands, settlement):
    """A wall clock that was set a day ahead makes nothing due; times are shown as it has them."""
    reactor.wait(store.accept([submission("x@c.example")]))
    (claim,) = reactor.wait(store.claim("c.example", 1))
    reactor.wait(store.settle([settlement(claim, "waiting")]))
    reactor.set_wall_time(reactor.wall_time() + DAY)
    store.now()
    reactor.advance(1)
    (site,) = commands.standing("c.example").sites
    assert (site.waiting, site.due_now, site.next_due) == (1, 0, MINUTE.replace("-21T", "-22T"))


def test_a_command_works_without_a_daemon(reactor, open_store, submission, tmp_path):
    """After it has closed the store, and after it has died with its log unfinished."""
    store = open_store()
    reactor.wait(store.accept([submission()]))
    reactor.wait(store.close())
    with open_for_commands(tmp_path, reactor.wall_time) as commands:
        assert commands.change("hold").changed == 1
    assert open_store().count().held == 1


def test_a_missing_queue_is_said_so(tmp_path, reactor):
    """With the path, and nothing is made."""
    with pytest.raises(StoreFailed, match=r"queue\.db does not exist"):
        open_for_commands(tmp_path, reactor.wall_time)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_queue_is_said_so(tmp_path, reactor, open_store):
    """For a command and for the daemon."""
    (tmp_path / "queue.db").write_bytes(b"This is no database at all. " * 400)
    with pytest.raises(StoreFailed, match="is damaged"):
        open_for_commands(tmp_path, reactor.wall_time)
    with pytest.raises(StoreFailed, match="is damaged"):
        open_store()


def test_a_newer_queue_is_left_alone(tmp_path, reactor, store, open_store):
    """A deferd that does not know its tables does not touch them."""
    with apsw.Connection(str(tmp_path / "queue.db")) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreFailed, match="newer deferd"):
        open_for_commands(tmp_path, reactor.wall_time)
    with pytest.raises(StoreFailed, match="newer deferd"):
        open_store()
