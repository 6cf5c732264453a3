"""Whose turn it is: sites in turn, never more claimed than there is room for, each message when it is its time.

The ring holds the sites that may have due work and may be given some; a turn goes round it once, and every site gets a
fair share of what is free. A site leaves the ring when it has no due work (a timer brings it back), is full (the end of
a conversation does), is refused another slot for the others' sake (the end of anybody's conversation does), has used up
its rate (the time of its next token does) or rests (the end of the rest does).

What is begun comes from the site's stock: messages claimed ahead, as many as it is likely to begin in the next moment,
so that a conversation's end needs no wait for the disk. A site that is slow has none in stock. What lies there can be
overtaken by nothing, held by nobody and moved by no routes, so it is given back as soon as any of that may matter.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any, Final

from deferred.defer import Deferred
from deferred.failure import Failure
from deferred.interfaces import Reactor, TimerHandle
from service.delivery.lookout import Lookout
from service.delivery.pool import Pool
from service.delivery.sites import Sites, SiteState
from service.delivery.stock import octets
from service.queue.store import Claim, Pace, Store, StoreFailed

_STORE_PATIENCE: Final = 1.0
"""Seconds between looks at a store that cannot commit."""

_AHEAD: Final = 0.2
"""Seconds' worth of messages that a site has in stock at most."""

_MOMENT: Final = 0.02
"""Seconds' worth that it may have in any case. Beyond that, and what it takes to bridge the time that the store needs,
it has no more than one message for each of its conversations, so that none delays by more than its own time what
should overtake it."""

_MOST_AHEAD: Final = 500
_MOST_OCTETS: Final = 16 * 1024 * 1024
"""Of content in the stocks of all sites: beyond, nothing is claimed ahead."""

_STALE: Final = 1.0
"""Seconds' worth of messages in stock that are too many: the site has become slow."""

_NOTED: Final = 10.0
"""Messages a second: by a higher rate the next message's time has come before another daemon can have started, and need
not be noted with each claim. By this one and lower ones messages are claimed one by one."""

_NOTED_AGAIN: Final = 1.0
"""Seconds between notes where the rate is higher: the other daemon's may be a lower one."""

_REFUSED_AT_ONCE: Final = 4
"""Sites that are asked whether they may have a slot that has become free."""


class Turns:
    """Claims work from the store and begins it."""

    def __init__(
        self,
        reactor: Reactor,
        store: Store,
        pool: Pool[Any],
        sites: Sites,
        deliver: Callable[[Claim], object],
        belongs: Callable[[Claim], bool],
        report: Callable[[Failure], object],
    ) -> None:
        """`deliver(claim)` begins, `belongs(claim)` tells whether it is still to go to its site."""
        self.lookout = Lookout(reactor, store, sites, self.mark)
        self._reactor = reactor
        self._store = store
        self._pool = pool
        self._sites = sites
        self._deliver = deliver
        self._belongs = belongs
        self._report = report
        self._ring: deque[SiteState] = deque()
        self._refused: OrderedDict[str, SiteState] = OrderedDict()
        self._promised = 0
        """Slots for which messages are being claimed."""
        self._octets = 0
        """Of content in all stocks."""
        self._epoch = 0
        """Claims that were asked for in a former one may be anything now."""
        self._due = False
        self._timer: TimerHandle | None = None
        self._stopped = False

    # what the scheduler tells

    def mark(self, state: SiteState) -> None:
        """The site may have due work."""
        state.more = True
        self.get_ready(state)

    def get_ready(self, state: SiteState, *, first: bool = False) -> None:
        """Let the next turn serve the site, if there may be anything for it."""
        if not state.ready and state.has_work and state.name not in self._refused and not self._stopped:
            state.ready = True
            (self._ring.appendleft if first else self._ring.append)(state)
            self._want_turn()

    def freed(self, state: SiteState) -> None:
        """There may be room for another conversation with the site, or another: who was refused one comes first."""
        if self._refused:
            self._ask_again(_REFUSED_AT_ONCE)
            self._refused.pop(state.name, None)
        self.get_ready(state)
        self._want_turn()

    def distrust(self) -> None:
        """Orders or routes have changed the queue: what is claimed and not begun may be held, gone, or another site's.
        And what there is room for may have changed."""
        self._epoch += 1
        for state in list(self._sites.values()):
            self.empty(state)
        self._ask_again(len(self._refused))

    def empty(self, state: SiteState) -> None:
        """Give the site's stock back."""
        claims = state.stock.clear()
        self._octets -= octets(claims)
        self._give_back(claims, state)

    def next(self, state: SiteState) -> Claim | None:
        """The site's next message, for a conversation that goes on; None where there is none, it is not its time, or
        the slot should go to others. It takes no slot until the message before has left."""
        if self._stopped or state.health != "up" or not state.stock or not self._store.healthy:
            return None
        if self._has_too_many(state) or self._waits_for_its_pace(state):
            return None
        return self._take(state)

    def note_pace(self, state: SiteState) -> None:
        """Have the store know how fast the site is served now, when nothing of it is in stock."""
        notes, now = self._store.notes, self._reactor.time()
        state.paced, state.paced_at = state.rate is not None, now
        if state.rate is None:
            noted = notes.forget_pace(state.name)
        else:
            noted = notes.note_pace(self._pace(state, state.rate, state.pace.next_at - now))
        noted.add_errback(self._report)

    def stop(self) -> None:
        """Claim and begin nothing any more."""
        self._stopped = True
        self._ring.clear()
        self._refused.clear()
        for state in list(self._sites.values()):
            self.empty(state)
            state.cancel_timers()
            if state.paced:  # to the moment: the last message was begun when its claim was durable
                self.note_pace(state)
        self.lookout.stop()
        if self._timer is not None:
            self._timer.cancel()

    # a turn

    def _want_turn(self) -> None:
        if self._ring and not self._due and not self._stopped:
            self._due = True
            self._reactor.call_soon(self._turn)

    def _turn(self) -> None:
        """Go round the ring once."""
        self._due = False
        if self._stopped:
            return
        if not self._store.healthy:  # what could not be settled must not be tried
            if self._timer is None:
                self._timer = self._reactor.call_later(_STORE_PATIENCE, self._look_at_store)
            return
        share, refused = max(1, self._free // max(1, len(self._ring))), False
        for _ in range(len(self._ring)):
            if self._free <= 0:
                return
            refused = self._serve(self._ring.popleft(), share) or refused
        if not refused:  # what these did not take, others may have
            self._ask_again(_REFUSED_AT_ONCE)

    def _ask_again(self, most: int) -> None:
        """Let so many of those that were refused a slot ask again, who has waited longest first."""
        for _ in range(min(most, len(self._refused))):
            self.get_ready(self._refused.popitem(last=False)[1])

    @property
    def _free(self) -> int:
        return self._pool.free - self._promised

    def _look_at_store(self) -> None:
        self._timer = None
        self._want_turn()

    def _serve(self, state: SiteState, share: int) -> bool:
        """Begin what a site has in stock, in at most its share of the slots that are free, and claim more; True if it
        was refused more for the others' sake."""
        state.ready = False
        if not state.takes_work:
            return False
        limit = state.concurrency.limit
        room = min(self._pool.room(state.name, limit), self._free, share if state.health == "up" else 1)
        begun = self._begin(state, room)
        if state.takes_work and state.more and not state.claiming:
            self._claim(state, room - begun)
        if begun < room or not state.has_work or self._pool.full_at(state.name, limit):
            return False
        if self._pool.room(state.name, limit):  # it has had its share of this turn
            self.get_ready(state)
            return False
        self._refused[state.name] = state
        return True

    def _has_too_many(self, state: SiteState) -> bool:
        """Whether one of the site's conversations should end, though there is more to send."""
        others = len(self._ring) + len(self._refused) - state.ready - (state.name in self._refused)
        if others and not self._pool.keeps(state.name):
            return True
        return self._pool.exceeds(state.name, state.concurrency.limit)

    # beginning

    def _begin(self, state: SiteState, room: int) -> int:
        """Begin up to so many messages of the stock; return how many."""
        begun = 0
        while begun < room and state.stock and not self._waits_for_its_pace(state):
            claim = self._take(state)
            self._pool.enter(state.name)
            if state.health == "probing":
                state.probe = claim.id
            begun += 1
            self._deliver(claim)
        return begun

    def _take(self, state: SiteState) -> Claim:
        state.pace.take(self._reactor.time())
        claim = state.stock.take()
        self._octets -= len(claim.content or b"")
        return claim

    def _waits_for_its_pace(self, state: SiteState, ahead: float = 0.0) -> bool:
        """Whether the site's next message has to wait for its time, less `ahead`; then it comes back by itself."""
        if state.rate is None:
            return False
        now = self._reactor.time()
        when = state.pace.when(now) - ahead
        if when > now and state.pace_timer is None:
            state.pace_timer = self._reactor.call_later(when - now, self._is_its_time, state)
        return when > now

    def _is_its_time(self, state: SiteState) -> None:
        state.pace_timer = None
        self.get_ready(state)

    # claiming

    def _claim(self, state: SiteState, room: int) -> None:
        """Ask the store for what there is room for, and for what will soon be wanted."""
        number = self._wanted(state, room)
        if number <= 0:
            return
        promised = min(number, room)
        self._promised += promised
        state.claiming, state.more = True, False
        d: Deferred[Any] = self._store.claim(state.name, number, self._pace_behind(state))
        d.add_both(self._answered, state, promised, self._reactor.time())
        d.add_callbacks(self._claimed, self._not_claimed, state, callback_args=(number, self._epoch))
        d.add_errback(self._report)

    def _pace_behind(self, state: SiteState) -> Callable[[], Pace] | None:
        """What says, when the site's next message is claimed, when it may have the one behind it: durable before that
        one is begun, so that a daemon that starts then, whatever became of this one, keeps to it."""
        if state.rate is None:
            return None
        if state.rate > _NOTED and self._reactor.time() < state.paced_at + _NOTED_AGAIN:
            return None
        rate, state.paced, state.paced_at = state.rate, True, self._reactor.time()

        def pace() -> Pace:
            now = self._reactor.time()
            return self._pace(state, rate, state.pace.after_next(now) - now)

        return pace

    def _pace(self, state: SiteState, rate: float, seconds: float) -> Pace:
        return Pace(site=state.name, rate=rate, next=max(0.0, self._store.now() + seconds))

    def _wanted(self, state: SiteState, room: int) -> int:
        stock = len(state.stock)
        if state.rate is not None:  # no message lies in stock for minutes, waiting for its time
            if room <= stock or self._waits_for_its_pace(state, _AHEAD):
                return 0
            return min(room, state.pace.available(self._reactor.time() + _AHEAD, room)) - stock
        ahead = self._ahead(state, room)
        return room + ahead - stock if room or stock <= ahead // 2 else 0

    def _ahead(self, state: SiteState, room: int) -> int:
        """How many messages the site will probably take in the next moment, with what is now to begin."""
        if state.health != "up" or not state.message_takes or self._octets > _MOST_OCTETS:
            return 0
        takes = max(state.message_takes, self._reactor.time() - state.ended_at, 0.001)
        # asked for anew when half of it is gone: the other half is enough also if it goes twice as fast from then on
        bridge = min(max(_MOMENT, 4 * state.claim_takes), _AHEAD)
        for_each = max(bridge / takes, min(1.0, _AHEAD / takes))
        return min(_MOST_AHEAD, int(for_each * (self._pool.busy_at(state.name) + room)))

    def _answered(self, result: Any, state: SiteState, promised: int, asked_at: float) -> Any:
        state.claiming = False
        state.claim_takes = self._reactor.time() - asked_at
        self._promised -= promised
        self._want_turn()
        return result

    def _claimed(self, claims: list[Claim], state: SiteState, asked: int, epoch: int) -> None:
        if len(claims) == asked:
            state.more = True
        welcome, others = self._sorted(claims, state, epoch)
        self._give_back(others, state)
        state.stock.add(welcome)
        self._octets += octets(welcome)
        self._watch_stock(state)
        if not state.more:
            self.lookout.look_ahead(state)
        self.get_ready(state, first=True)  # before others claim for the slots that it was promised

    def _sorted(self, claims: list[Claim], state: SiteState, epoch: int) -> tuple[list[Claim], list[Claim]]:
        """The claims that may still be tried, and the others: the end, a rest, orders or routes came before them."""
        if self._stopped or state.health == "resting" or epoch != self._epoch:
            return [], claims
        most = len(claims) if state.health == "up" else 1 - len(state.stock)
        welcome: list[Claim] = []
        others: list[Claim] = []
        for claim in claims:
            (welcome if len(welcome) < most and self._belongs(claim) else others).append(claim)
        return welcome, others

    def _not_claimed(self, failure: Failure, state: SiteState) -> None:
        """The store could not say: ask again in a while."""
        self.lookout.look_later(state)
        failure.trap(StoreFailed)

    # giving back

    def _give_back(self, claims: list[Claim], state: SiteState) -> None:
        """The claims are not to be begun, or not now."""
        if claims:
            state.more = True
            if state.paced:
                self.note_pace(state)
            self._store.unclaim(claims).add_callback(self._given_back).add_errback(self._report)

    def _given_back(self, sites: list[str]) -> None:
        """They wait at these sites now: at others than before where the routes have changed."""
        for site in sites:
            self.mark(self._sites[site])

    def _watch_stock(self, state: SiteState) -> None:
        if state.stock and state.stock_timer is None:
            state.stock_timer = self._reactor.call_later(_STALE, self._look_at_stock, state, state.stock.taken)

    def _look_at_stock(self, state: SiteState, taken: int) -> None:
        """Give the stock back if there is more in it than was taken of late: what comes now shall overtake it."""
        state.stock_timer = None
        if len(state.stock) > state.stock.taken - taken:
            self.empty(state)
        self._watch_stock(state)
