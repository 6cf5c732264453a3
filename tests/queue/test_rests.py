"""Sites that rest are remembered across restarts."""

from __future__ import annotations

import msgspec

from service.queue.store import Rest

REST = Rest(site="mx:25", ends=1_790_000_300.5, failures=4, since=1_790_000_000.25, why="the port is closed")


def test_a_rest_is_there_after_a_restart(reactor, open_store):
    """As it was noted, to the second."""
    reactor.wait(open_store().note_rest(REST))
    assert open_store().rests() == [REST]


def test_a_site_has_one_rest_the_last(reactor, store):
    """A longer one takes the place of the one before; another site's stays."""
    longer = msgspec.structs.replace(REST, ends=REST.ends + 600, failures=5)
    other = msgspec.structs.replace(REST, site="other:25")
    for rest in (REST, other, longer):
        reactor.wait(store.note_rest(rest))
    assert sorted(store.rests(), key=lambda rest: rest.site) == [longer, other]


def test_a_site_that_serves_has_none(reactor, open_store):
    """It is forgotten for good; one that is not known is no error."""
    store = open_store()
    reactor.wait(store.note_rest(REST))
    reactor.wait(store.forget_rest(REST.site))
    reactor.wait(store.forget_rest("nobody:25"))
    assert store.rests() == []
    assert open_store().rests() == []


def test_the_last_word_counts(reactor, store):
    """Noted, forgotten and noted in one turn: it rests."""
    store.note_rest(REST)
    store.forget_rest(REST.site)
    reactor.wait(store.note_rest(REST))
    assert store.rests() == [REST]
