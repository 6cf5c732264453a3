"""The store as its users meet it: accept, claim, settle, look."""

from __future__ import annotations

import msgspec
import pytest

from service.queue.store import Counts, SiteBacklog, Source, UnknownJob


def test_an_accepted_job_is_claimed_with_its_content(reactor, store, submission):
    """What went in comes out, with the recipients of one site together."""
    job = submission("ann@a.example", "bob@b.example", "eve@a.example", expires=60.0, in_doubt="hold")
    [accepted] = reactor.wait(store.accept([job]))
    [claim] = reactor.wait(store.claim("a.example", 10))
    assert (claim.id, claim.name, claim.sender) == (accepted.id, "hello", "shop@example.org")
    assert claim.recipients == ("ann@a.example", "eve@a.example")
    assert (claim.content, claim.size, claim.pieces, claim.eight_bit) == (job.job.content, 21, 1, False)
    assert claim.expires_at == claim.accepted_at + 60
    assert (claim.attempts, claim.warned, claim.in_doubt) == (0, False, "hold")
    assert reactor.wait(store.claim("a.example", 10)) == []


def test_nothing_is_told_before_the_commit(reactor, store, submission):
    """The Deferred fires only once COMMIT is through, and a look sees nothing until then."""
    fired = []
    store.accept([submission()]).add_callback(fired.append)
    reactor.turn()
    assert (fired, store.count().queued) == ([], 0)
    reactor.settle()
    assert len(fired) == 1
    assert store.count().queued == 1


def test_operations_of_one_turn_are_one_transaction(reactor, store, submission, monkeypatch):
    """A hundred jobs accepted one by one in a turn cost one COMMIT, and their answers keep their order."""
    commits = []
    defer = reactor.defer_to_thread
    monkeypatch.setattr(reactor, "defer_to_thread", lambda f, *a: (commits.append(f), defer(f, *a))[1])
    names = []
    for n in range(100):
        store.accept([submission(name=f"j{n}")]).add_callback(lambda done: names.append(done[0].name))
    reactor.settle()
    assert names == [f"j{n}" for n in range(100)]
    assert len(commits) == 1


def test_a_failing_operation_harms_no_other(reactor, store, submission):
    """An operation that raises is undone alone; those before and after it in its batch are committed."""
    first = store.accept([submission(name="one")])
    bad = store.accept([submission("x@x.example", name="bad", sites=("a", "b"))])  # sites do not match recipients
    last = store.accept([submission(name="two")])
    with pytest.raises(ValueError, match="zip"):
        reactor.wait(bad)
    assert [reactor.wait(d)[0].name for d in (first, last)] == ["one", "two"]
    assert [view.name for view in store.list()] == ["one", "two"]


def test_a_delivered_job_ends_and_its_content_goes(reactor, store, submission, settlement):
    """When the last recipient is settled the job has its final state and its content is deleted."""
    [accepted] = reactor.wait(store.accept([submission()]))
    [claim] = reactor.wait(store.claim("a.example", 1))
    reactor.wait(store.settle([settlement(claim)]))
    view = store.show(accepted.id)
    assert (view.state, view.attempts, view.next_attempt) == ("delivered", 1, None)
    assert view.finished_at == view.accepted_at == "2026-09-21T14:13:20.000Z"
    [recipient] = view.recipients
    assert (recipient.state, recipient.code, recipient.host, recipient.phase) == ("delivered", 250, "mx:25", "confirm")
    assert store.count() == Counts(0, 0, None)
    with pytest.raises(LookupError):
        reactor.wait(store.read(claim, 0))


def test_a_waiting_recipient_is_due_again_when_said(reactor, store, submission, settlement):
    """After a 450 the message is claimed again at its new time, not before, with its attempts counted."""
    reactor.wait(store.accept([submission()]))
    [claim] = reactor.wait(store.claim("a.example", 1))
    reactor.wait(store.settle([settlement(claim, "waiting", warned=True)]))
    assert store.next_due("a.example") == reactor.wall_time() + 60
    reactor.advance(59)
    assert reactor.wait(store.claim("a.example", 1)) == []
    reactor.advance(1)
    [claim] = reactor.wait(store.claim("a.example", 1))
    assert (claim.attempts, claim.warned) == (1, True)


def test_each_recipient_has_its_own_fate(reactor, store, submission, settlement, outcome):
    """Of five recipients of a site one stays to be tried; delivered and failed ones make the job partly."""
    people = tuple(f"p{n}@a.example" for n in range(5))
    [accepted] = reactor.wait(store.accept([submission(*people)]))
    [claim] = reactor.wait(store.claim("a.example", 1))
    states = ["delivered", "failed", "waiting", "delivered", "delivered"]
    mixed = tuple(outcome(address, state) for address, state in zip(people, states, strict=True))
    reactor.wait(store.settle([settlement(claim, "waiting", outcomes=mixed)]))
    assert [one.state for one in store.show(accepted.id).recipients] == states
    assert store.show(accepted.id).state == "queued"
    reactor.advance(60)
    [claim] = reactor.wait(store.claim("a.example", 1))
    assert claim.recipients == (people[2],)
    reactor.wait(store.settle([settlement(claim)]))
    assert store.show(accepted.id).state == "partly"


def test_a_job_of_several_sites_ends_with_the_last(reactor, store, submission, settlement):
    """One site's delivery does not end the job; attempts are those of the busiest site, next is the earliest."""
    [accepted] = reactor.wait(store.accept([submission("ann@a.example", "bob@b.example")]))
    [at_a] = reactor.wait(store.claim("a.example", 1))
    reactor.wait(store.settle([settlement(at_a, "failed")]))
    assert store.show(accepted.id).state == "queued"
    [at_b] = reactor.wait(store.claim("b.example", 1))
    reactor.wait(store.settle([settlement(at_b, "waiting")]))
    assert store.show(accepted.id).next_attempt == "2026-09-21T14:14:20.000Z"
    reactor.advance(60)
    [at_b] = reactor.wait(store.claim("b.example", 1))
    reactor.wait(store.settle([settlement(at_b, "failed")]))
    view = store.show(accepted.id)
    assert (view.state, view.attempts) == ("failed", 2)


def test_a_report_is_accepted_in_the_settlements_transaction(reactor, store, submission, settlement):
    """A bounce is a job of its own as soon as the failure is known, and not twice for a claim settled twice."""
    reactor.wait(store.accept([submission()]))
    [claim] = reactor.wait(store.claim("a.example", 1))
    bounce = submission("shop@example.org", name="bounce")
    once = settlement(claim, "failed", reports=(bounce,))
    reactor.wait(store.settle([once]))
    reactor.wait(store.settle([once]))
    assert [view.name for view in store.list()] == ["bounce"]


def test_a_settlement_counts_only_for_its_own_claim(reactor, store, submission, settlement):
    """One that comes late, when the message is claimed anew, changes nothing."""
    [accepted] = reactor.wait(store.accept([submission()]))
    [old] = reactor.wait(store.claim("a.example", 1))
    reactor.wait(store.unclaim([old]))
    [new] = reactor.wait(store.claim("a.example", 1))
    reactor.wait(store.settle([settlement(old, "failed")]))
    assert store.show(accepted.id).state == "queued"
    reactor.wait(store.settle([settlement(new)]))
    assert store.show(accepted.id).state == "delivered"


def test_an_unclaimed_message_is_due_as_it_was(reactor, store, submission):
    """Giving a claim back leaves attempts and due time alone."""
    reactor.wait(store.accept([submission()]))
    due = store.next_due("a.example")
    claims = reactor.wait(store.claim("a.example", 1))
    assert store.next_due("a.example") is None
    reactor.wait(store.unclaim(claims))
    assert store.next_due("a.example") == due
    assert reactor.wait(store.claim("a.example", 1))[0].attempts == 0


def test_what_a_dead_daemon_had_in_flight_is_due_at_once(reactor, open_store, submission, settlement):
    """The next start releases every lease, even of a message whose retry was planned for later."""
    store = open_store()
    reactor.wait(store.accept([submission()]))
    reactor.wait(store.claim("a.example", 1))
    again = open_store()
    assert again.aftermath.in_flight == 1
    [claim] = reactor.wait(again.claim("a.example", 1))
    assert claim.attempts == 0


def test_a_dropped_file_is_never_taken_twice(reactor, open_store, submission):
    """The same name, inode, time and size is the same job, also for the next daemon; any of them else is not."""
    first = submission(source=Source("hello.eml", 7, 99, 21))
    [accepted] = reactor.wait(open_store().accept([first]))
    store = open_store()
    [again] = reactor.wait(store.accept([first]))
    assert (again.id, again.known) == (accepted.id, True)
    [other] = reactor.wait(store.accept([submission(source=Source("hello.eml", 7, 100, 21))]))
    assert not other.known


def test_a_key_is_known_for_seven_days(reactor, store, submission):
    """The same key is the same job, in one batch as well; after seven days it may be used anew."""
    first, second = reactor.wait(store.accept([submission(key="k"), submission(key="k", name="other")]))
    assert (second.id, second.known) == (first.id, True)
    reactor.wait(store.change("remove", None, None))
    reactor.advance(7 * 86400 - 1)
    assert reactor.wait(store.accept([submission(key="k")]))[0].known
    reactor.advance(1)
    assert not reactor.wait(store.accept([submission(key="k")]))[0].known


def test_a_second_job_of_a_name_gets_its_id_into_the_results_name(reactor, store, submission):
    """Whether the first is in the same batch, in the queue, or only its file on disk."""
    one, two = reactor.wait(store.accept([submission(), submission()]))
    [three] = reactor.wait(store.accept([submission(name="else", name_taken=True)]))
    assert (one.name, two.name, three.name) == ("hello", f"hello-{two.id}", f"else-{three.id}")
    assert store.show(two.id).name == "hello"


@pytest.mark.parametrize(("name", "kept"), [("ü" * 125, True), ("x" * 250, True), ("x" * 251, False)])
def test_a_name_too_long_for_its_results_ending_is_cut(reactor, store, submission, name, kept):
    """The result stays within 255 octets, cut between characters; what is cut, or there already, has -ID."""
    one, two = reactor.wait(store.accept([submission(name=name), submission(name=name)]))
    assert (one.name == name) == kept
    for accepted in (one, two) if not kept else (two,):
        assert 253 < len(f"{accepted.name}.json".encode()) <= 255
        assert accepted.name.endswith(f"-{accepted.id}")


def test_not_before_is_kept(reactor, store, submission):
    """A job that is to wait is due at its time."""
    at = reactor.wall_time() + 3600
    reactor.wait(store.accept([submission(not_before=at)]))
    assert store.backlog() == [SiteBacklog("a.example", at)]
    assert reactor.wait(store.claim("a.example", 1)) == []


def test_the_backlog_names_each_site_with_its_first_due(reactor, store, submission):
    """Sites with nothing but claimed or held messages are not in it."""
    now = reactor.wall_time()
    reactor.wait(store.accept([submission("x@b.example"), submission("x@a.example", not_before=now + 5)]))
    reactor.wait(store.accept([submission("y@a.example", not_before=now + 3), submission("x@c.example")]))
    reactor.wait(store.claim("c.example", 1))
    assert store.backlog() == [SiteBacklog("a.example", now + 3), SiteBacklog("b.example", now)]


def test_a_large_content_is_read_in_pieces(reactor, store, submission, settlement):
    """Content beyond one row does not travel with the claim, comes back whole, and goes when the job ends."""
    content = bytes(range(1, 255)) * 6000
    reactor.wait(store.accept([submission(content=content)]))
    [claim] = reactor.wait(store.claim("a.example", 1))
    assert (claim.content, claim.pieces, claim.size, claim.eight_bit) == (None, 6, len(content), True)
    assert b"".join(reactor.wait(store.read(claim, n)) for n in range(claim.pieces)) == content
    reactor.wait(store.settle([settlement(claim)]))
    with pytest.raises(LookupError):
        reactor.wait(store.read(claim, 5))


def test_pieces_without_a_job_are_swept(reactor, open_store, submission):
    """A large content whose job was known, or never came to be, leaves nothing behind."""
    store = open_store()
    big = submission(content=b"x" * 600_000, key="k")
    reactor.wait(store.accept([big, big]))
    jobs = store._look.execute("SELECT DISTINCT job FROM piece").fetchall()
    assert len(jobs) == 1
    store._commit.submit(lambda connection, _: connection.execute("INSERT INTO piece VALUES (5, 0, x'00')"))
    reactor.settle()
    assert open_store()._look.execute("SELECT DISTINCT job FROM piece").fetchall() == jobs


def test_a_claim_of_much_content_is_cut_short(reactor, store, submission):
    """Contents that travel with a claim are at most 4 MiB together."""
    reactor.wait(store.accept([submission(content=b"x" * 250_000) for _ in range(30)]))
    assert len(reactor.wait(store.claim("a.example", 30))) == 16


def test_hold_and_release(reactor, store, submission):
    """A held job is claimed by nobody until it is released."""
    [accepted] = reactor.wait(store.accept([submission()]))
    assert reactor.wait(store.change("hold", [accepted.id], None)) == 1
    assert reactor.wait(store.change("hold", [accepted.id], None)) == 0
    assert (store.show(accepted.id).state, store.count().held) == ("held", 1)
    assert reactor.wait(store.claim("a.example", 1)) == []
    assert reactor.wait(store.change("release", None, "a.example")) == 1
    assert len(reactor.wait(store.claim("a.example", 1))) == 1


def test_a_job_held_in_flight_is_held_when_it_lands(reactor, store, submission, settlement):
    """An attempt under way is not called back, but nothing follows it."""
    [accepted] = reactor.wait(store.accept([submission()]))
    [claim] = reactor.wait(store.claim("a.example", 1))
    reactor.wait(store.change("hold", None, None))
    reactor.wait(store.settle([settlement(claim, "waiting")]))
    reactor.advance(100)
    assert reactor.wait(store.claim("a.example", 1)) == []
    assert store.show(accepted.id).state == "held"


def test_a_settlement_can_hold(reactor, store, submission, settlement):
    """A message whose confirmation was lost may be kept for an operator to decide."""
    [accepted] = reactor.wait(store.accept([submission()]))
    [claim] = reactor.wait(store.claim("a.example", 1))
    reactor.wait(store.settle([settlement(claim, "waiting", hold=True)]))
    view = store.show(accepted.id)
    assert (view.state, view.next_attempt) == ("held", None)


def test_retry_makes_due_now_and_remembers_the_sites(reactor, store, submission):
    """The sites are there for the daemon to end their rest, once."""
    later = reactor.wall_time() + 3600
    reactor.wait(store.accept([submission("x@a.example", "y@b.example", not_before=later)]))
    assert reactor.wait(store.change("retry", None, None)) == 1
    assert store.next_due("a.example") == reactor.wall_time()
    assert reactor.wait(store.retried()) == ["a.example", "b.example"]
    assert reactor.wait(store.retried()) == []


def test_retry_leaves_what_will_be_held_as_it_is(reactor, store, submission):
    """It is being sent while it is held: when it lands it goes nowhere, however due it is."""
    [accepted] = reactor.wait(store.accept([submission()]))
    reactor.wait(store.claim("a.example", 1))
    reactor.wait(store.change("hold", [accepted.id], None))
    assert reactor.wait(store.change("retry", [accepted.id], None)) == 0
    assert reactor.wait(store.retried()) == []


def test_a_removed_job_has_failed_and_its_attempt_is_forgotten(reactor, store, submission, settlement):
    """Its recipients fail; that it is to be tried again, or has failed in another way, changes nothing."""
    [accepted] = reactor.wait(store.accept([submission()]))
    [claim] = reactor.wait(store.claim("a.example", 1))
    assert reactor.wait(store.change("remove", [accepted.id], None)) == 1
    for state in ("waiting", "failed"):
        [settled] = reactor.wait(store.settle([settlement(claim, state)]))
        assert settled.state is None
    view = store.show(accepted.id)
    assert (view.state, view.recipients[0].text) == ("failed", "removed from the queue by the operator")


def test_a_removed_job_keeps_what_its_last_try_brought(reactor, store, submission, settlement):
    """Code, host, phase and time are the server's answer; one that was not tried has the time of its removal."""
    [tried, untried] = reactor.wait(store.accept([submission(), submission("x@b.example")]))
    [claim] = reactor.wait(store.claim("a.example", 1))
    reactor.wait(store.settle([settlement(claim, "waiting")]))
    before = store.show(tried.id).recipients[0]
    reactor.advance(60)
    assert reactor.wait(store.change("remove", None, None)) == 2
    after, never = (store.show(one.id).recipients[0] for one in (tried, untried))
    assert before.text
    assert after.text == f"removed from the queue by the operator; the last try said: {before.text}"
    assert (after.state, before.state) == ("failed", "waiting")
    for name in ("code", "enhanced", "host", "phase", "at"):
        assert getattr(after, name) == getattr(before, name) is not None
    assert (never.text, never.code, never.host) == ("removed from the queue by the operator", None, None)
    assert never.at > after.at


def test_what_was_removed_and_arrives_all_the_same_is_delivered(reactor, store, submission, settlement, outcome):
    """The accounts tell what happened: the server had taken it for one recipient when the job was removed."""
    people = ("ann@a.example", "bob@a.example")
    [accepted] = reactor.wait(store.accept([submission(*people)]))
    [claim] = reactor.wait(store.claim("a.example", 1))
    reactor.wait(store.change("remove", [accepted.id], None))
    mixed = (outcome(people[0], "delivered"), outcome(people[1], "waiting"))
    [settled] = reactor.wait(store.settle([settlement(claim, outcomes=mixed)]))
    assert settled.state == "partly"
    view = store.show(accepted.id)
    assert [(each.state, each.code) for each in view.recipients] == [("delivered", 250), ("failed", None)]
    assert (view.state, store.count().queued) == ("partly", 0)


def test_an_id_that_is_not_in_the_queue_changes_nothing(reactor, store, submission):
    """One bad id among good ones stops the command before it began."""
    [accepted] = reactor.wait(store.accept([submission()]))
    for bad in ("nonsense", "000000000000", accepted.id + "0"):
        with pytest.raises(UnknownJob, match=bad):
            reactor.wait(store.change("hold", [accepted.id, bad], None))
    assert store.show(accepted.id).state == "queued"


def test_the_list_is_filtered_and_oldest_first(reactor, store, submission, settlement):
    """By site, by state, and by both; without a state what is unfinished."""
    people = ("x@a.example", "x@b.example", "x@a.example", "x@b.example")
    done = reactor.wait(store.accept([submission(one, name=f"j{n}") for n, one in enumerate(people)]))
    reactor.wait(store.change("hold", [done[1].id], None))
    [claim] = reactor.wait(store.claim("a.example", 1))
    reactor.wait(store.settle([settlement(claim)]))

    def names(**by):
        return [view.name for view in store.list(**by)]

    assert names() == ["j1", "j2", "j3"]
    assert names(limit=2) == ["j1", "j2"]
    assert names(state="held") == ["j1"]
    assert names(site="b.example") == ["j1", "j3"]
    assert names(site="b.example", state="queued") == ["j3"]
    assert names(state="delivered") == names(state="delivered", site="a.example") == ["j0"]
    assert names(state="delivered", site="b.example") == []


def test_new_routes_move_what_waits(reactor, open_store, submission):
    """Recipients that share a site anew travel together, due as they were; the same routes again move nothing."""
    store = open_store()
    reactor.wait(store.accept([submission("x@a.example", "y@b.example"), submission("z@c.example")]))

    def relay(address):
        return "c.example" if address.endswith("c.example") else "relay:25"

    assert reactor.wait(store.reroute(relay, "1")) == 1
    [claim] = reactor.wait(store.claim("relay:25", 9))
    assert claim.recipients == ("x@a.example", "y@b.example")
    assert {one.site for one in store.backlog()} == {"c.example"}
    assert reactor.wait(open_store().reroute(lambda _: "never asked", "1")) == 0


@pytest.mark.parametrize(("rested", "at_once"), [(True, True), (False, False)])
def test_a_rest_is_left_behind_with_its_site(reactor, open_store, submission, settlement, rested, at_once):
    """What waited for its old site is due at the new one now; what a server put off keeps its time."""
    store = open_store()
    reactor.wait(store.accept([submission("x@a.example")]))
    [claim] = reactor.wait(store.claim("a.example", 1))
    later = reactor.wall_time() + 300
    reactor.wait(store.settle([msgspec.structs.replace(settlement(claim, "waiting"), due=later, rested=rested)]))
    reactor.wait(store.reroute(lambda _: "new", "2"))
    assert len(reactor.wait(store.claim("new", 1))) == at_once


def test_what_is_in_flight_moves_when_it_lands(reactor, open_store, submission, settlement):
    """A claim made by former routes keeps its site until it is settled or given back."""
    store = open_store()
    reactor.wait(store.accept([submission("x@a.example"), submission("y@a.example")]))
    one, two = reactor.wait(store.claim("a.example", 2))
    assert reactor.wait(store.reroute(lambda _: "new", "2")) == 0
    reactor.wait(store.settle([settlement(one, "waiting")]))
    reactor.wait(store.unclaim([two]))
    assert [site.site for site in store.backlog()] == ["new"]
    assert reactor.wait(open_store().reroute(lambda _: "newer", "2")) == 2  # a crash might have left some behind


def test_finished_jobs_are_forgotten_after_their_time(reactor, open_store, submission, settlement):
    """Purged jobs are gone with all their rows, and their results' names are told; unfinished ones stay."""
    here = Source("stuck.eml", 1, 2, 3)
    store = open_store(present=lambda source: source == here)
    jobs = [submission(), submission("y@b.example", name="open"), submission(name="stuck", source=here)]
    reactor.wait(store.accept(jobs))
    for claim in reactor.wait(store.claim("a.example", 2)):
        reactor.wait(store.settle([settlement(claim)]))
    reactor.advance(1)
    assert reactor.wait(store.purge(reactor.wall_time())) == ["hello"]
    assert [view.name for view in store.list(state="delivered")] == ["stuck"]
    assert store._look.execute("SELECT count(DISTINCT job) FROM recipient").get == 2
    assert reactor.wait(store.accept([jobs[2]]))[0].known


def test_owed_results_are_remembered_until_the_right_version_is_written(reactor, open_store, submission, settlement):
    """A result written from an older view does not pay for a newer one, and a new process finds what is owed."""
    store = open_store()
    reactor.wait(store.accept([submission()]))
    [job] = store.owed_jobs(0, 10)
    [early] = store.owed_results([job])
    [claim] = reactor.wait(store.claim("a.example", 1))
    reactor.wait(store.settle([settlement(claim)]))
    reactor.wait(store.reported([early]))
    [late] = open_store().owed_results([job])
    assert (early.view.state, late.view.state, late.name) == ("queued", "delivered", "hello")
    reactor.wait(store.reported([late]))
    assert store.owed_jobs(0, 10) == []


@pytest.mark.parametrize(("policy", "owed"), [("all", 2), ("failed", 1), ("none", 0)])
def test_results_are_owed_as_the_operator_wants(reactor, open_store, submission, settlement, policy, owed):
    """All jobs, only those that failed in part or whole, or none."""
    store = open_store(results=policy)
    reactor.wait(store.accept([submission(), submission("y@b.example")]))
    for site, state in (("a.example", "delivered"), ("b.example", "failed")):
        [claim] = reactor.wait(store.claim(site, 1))
        reactor.wait(store.settle([settlement(claim, state)]))
    assert len(store.owed_jobs(0, 10)) == owed


def test_a_probe_commits(reactor, store):
    """It fires when the store can be written."""
    assert reactor.wait(store.probe()) is None
    assert store.healthy


def test_close_commits_what_was_asked_for(reactor, open_store, submission):
    """What is under way when the store closes is not lost; what comes later is refused."""
    store = open_store()
    accepted = store.accept([submission()])
    reactor.wait(store.close())
    assert reactor.wait(accepted)[0].name == "hello"
    assert open_store().count().queued == 1


def test_a_released_job_keeps_its_hour(reactor, store, submission):
    """Held and let go again before its `not_before`: it is not sent any earlier for that; `retry` means now."""
    hour = reactor.wall_time() + 3600
    [accepted] = reactor.wait(store.accept([submission(not_before=hour)]))
    reactor.wait(store.change("hold", [accepted.id], None))
    reactor.wait(store.change("release", [accepted.id], None))
    assert store.next_due("a.example") == hour
    reactor.wait(store.change("retry", [accepted.id], None))
    assert store.next_due("a.example") == reactor.wall_time()
