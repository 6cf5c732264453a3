"""Whatever a server says, in whatever pieces: no exception, no octet too many in the clear, no envelope forgotten."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.smtp.auth import Credentials
from service.smtp.envelope import Envelope
from service.smtp.events import BodyWanted, Event, Failed, Finished, Ready, StartTLS
from service.smtp.options import SessionOptions
from service.smtp.session import Session

SECRET: Final = "hunter2"
ENVELOPES: Final = (
    Envelope("ann@a.example", ("bob@b.example", "eve@b.example", "jürgen@b.example"), 7, True),
    Envelope("", ("bob@bücher.example",)),
    Envelope("ann@a.example", ("bob@b.example",), 10_000),
)


class Driver:
    """Does what a driver does, and keeps what was said in the clear."""

    def __init__(self, options: SessionOptions) -> None:
        self.session = Session(options)
        self.events: list[Event] = []
        self.sent: list[Envelope] = []
        self.clear = b""
        self.inside = b""

    def feed(self, octets: bytes) -> None:
        self.react(self.session.receive_data(octets))

    def react(self, events: list[Event]) -> None:
        for event in events:
            assert not self.events or not isinstance(self.events[-1], Failed), "something came after the end"
            self.events.append(event)
            if isinstance(event, BodyWanted):
                self.session.send_body(b".\r\n", last=False)
                self.session.send_body(b"the content\r\n", last=True)
        if self.session.takes_envelope and len(self.sent) < len(ENVELOPES):
            self.sent.append(ENVELOPES[len(self.sent)])
            self.react(self.session.send(self.sent[-1]))
        if self.session.secure:
            self.inside += self.session.data_to_send()
        else:
            self.clear += self.session.data_to_send()
        if events and isinstance(events[-1], StartTLS):
            self.session.tls_established()
            self.react([])

    def end(self) -> None:
        """Hang up, and look whether the accounts balance."""
        self.react(self.session.connection_lost("EOF"))
        finished = [event for event in self.events if isinstance(event, Finished)]
        failed = [event for event in self.events if isinstance(event, Failed)]
        errors = [error for event in failed for error in (event.error, *event.ahead)]
        assert len(failed) + sum(event.close for event in finished) >= 1
        fates = [event.outcomes for event in finished] + [error.outcomes for error in errors]
        for envelope, outcomes in zip(self.sent, fates, strict=False):
            assert {outcome.address for outcome in outcomes} <= set(envelope.recipients)
        for envelope, event in zip(self.sent, finished, strict=False):
            assert tuple(outcome.address for outcome in event.outcomes) == envelope.recipients
        assert len(fates) >= len(self.sent)
        assert self.session.data_to_send() == b""


codes = st.sampled_from([b"220", b"235", b"250", b"334", b"354", b"421", b"450", b"521", b"550", b"199", b"2x0"])
texts = st.sampled_from(
    [b"ok", b"2.0.0 ok", b"STARTTLS", b"PIPELINING", b"AUTH PLAIN LOGIN", b"SIZE 99", b"\0\xff", b""]
)
lines = st.builds(lambda code, dash, text: code + dash + text + b"\r\n", codes, st.sampled_from([b" ", b"-"]), texts)
likely = st.sampled_from(
    [
        b"220 hi\r\n",
        b"250-mx\r\n250-PIPELINING\r\n250-STARTTLS\r\n250-8BITMIME\r\n250-SIZE 9999\r\n250 AUTH PLAIN\r\n",
        b"250-mx\r\n250-SMTPUTF8\r\n250 AUTH LOGIN\r\n",
        b"250 ok\r\n",
        b"235 ok\r\n",
        b"334 \r\n",
        b"354 go\r\n",
        b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n",
        b"550 5.1.1 no\r\n",
    ]
)
speech = st.lists(st.one_of(likely, likely, lines, st.binary(max_size=20)), max_size=25)
options = st.builds(
    SessionOptions,
    hostname=st.just("me.example"),
    tls=st.sampled_from(["none", "opportunistic", "encrypt", "verify"]),
    credentials=st.sampled_from([None, Credentials("user", SECRET)]),
    lmtp=st.booleans(),
    skip_starttls=st.booleans(),
)


@given(options, speech)
@settings(max_examples=400, deadline=None)
def test_nothing_that_a_server_says_gets_through(options, speech):
    """Plausible replies and arbitrary octets, in any order."""
    driver = Driver(options)
    for octets in speech:
        driver.feed(octets)
    driver.end()
    if options.tls in ("encrypt", "verify"):
        said = {line.split(b" ")[0] for line in driver.clear.split(b"\r\n")}
        assert said <= {b"", b"EHLO", b"HELO", b"LHLO", b"STARTTLS"}
    if options.tls == "opportunistic" and options.credentials:
        assert b"AUTH" not in driver.clear
        assert b"MAIL" not in driver.clear
    if options.credentials and Ready() in driver.events:
        assert b"AUTH" in driver.clear + driver.inside


@given(options, st.lists(st.binary(max_size=200), max_size=20))
@settings(max_examples=200, deadline=None)
def test_noise_is_survived(options, noise):
    """Octets of no meaning at all."""
    driver = Driver(options)
    driver.feed(b"220 hi\r\n")
    for octets in noise:
        driver.feed(octets)
    driver.end()


LEGAL: Final = [
    b"220-mx.example\r\n220 at your service\r\n",
    b"250-mx.example\r\n250-PIPELINING\r\n250-AUTH PLAIN\r\n250 STARTTLS\r\n",
    b"220 go\r\n",
    b"250-mx.example\r\n250-PIPELINING\r\n250 AUTH LOGIN\r\n",
    b"334 VXNlcm5hbWU6\r\n",
    b"334 UGFzc3dvcmQ6\r\n",
    b"235 2.7.0 ok\r\n",
    b"250 ok\r\n250 ok\r\n550-5.1.1 no\r\n550 5.1.1 such user\r\n354 go\r\n",
    b"250 2.0.0 queued\r\n250 ok\r\n450 later\r\n554 nobody\r\n",
    b"250 ok\r\n",
    b"250 ok\r\n550 no\r\n554 no\r\n",
    b"250 ok\r\n",
]
"""What a server says at a time; it speaks only when it was asked."""


def played(pieces_of: list[list[bytes]]) -> tuple[list[Event], bytes, bytes]:
    """What comes of the legal dialogue, each part of it in pieces."""
    options = SessionOptions(hostname="me.example", tls="verify", credentials=Credentials("user", SECRET))
    driver = Driver(options)
    for pieces in pieces_of:
        for piece in pieces:
            driver.feed(piece)
    return driver.events, driver.clear, driver.inside


WHOLE: Final = played([[part] for part in LEGAL])


def test_the_legal_dialogue_comes_to_its_end():
    """Else the tests below would compare nothing with nothing."""
    events, clear, inside = WHOLE
    assert [type(event) for event in events] == [StartTLS, Ready, BodyWanted, Finished, Finished, Finished]
    assert clear == b"EHLO me.example\r\nSTARTTLS\r\n"
    assert inside.endswith(b"RSET\r\n")


@pytest.mark.parametrize("length", [1, 2, 3, 5, 7])
def test_a_dialogue_in_pieces_of_any_length_is_the_same(length):
    """Down to single octets."""
    assert played([[part[i : i + length] for i in range(0, len(part), length)] for part in LEGAL]) == WHOLE


@given(st.lists(st.lists(st.integers(0, 90), max_size=4), min_size=len(LEGAL), max_size=len(LEGAL)))
@settings(deadline=None)
def test_a_dialogue_cut_anywhere_is_the_same(cuts):
    """At any places of any of its parts."""
    pieces_of = []
    for part, places in zip(LEGAL, cuts, strict=True):
        edges = sorted({0, len(part), *(place for place in places if place < len(part))})
        pieces_of.append([part[start:end] for start, end in pairwise(edges)])
    assert played(pieces_of) == WHOLE
