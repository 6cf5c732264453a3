"""Whatever a server says, in whatever pieces: no exception, no octet too many in the clear, no envelope forgotten."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from service.smtp.auth import Credentials
from service.smtp.envelope import Envelope
from service.smtp.events import BodyWanted, Event, Failed, Finished, Ready, StartTLS
from service.smtp.options import SessionOptions
from service.smtp.reply import REPLY_LIMIT, TEXT_LIMIT, Reply, ReplyError, ReplyReader
from service.smtp.session import Session

SECRET: Final = "hunter2"
ENVELOPES: Final = (
    Envelope("ann@a.example", ("bob@b.example", "eve@b.example", "jürgen@b.example"), 7, True),
    Envelope("", ("bob@bücher.example",)),
    Envelope("ann@a.example", ("bob@b.example",), 10_000),
)


class Driver:
    """Does what a driver does, and keeps what was said in the clear.

    `slow`: it has the content's next piece only when it has heard something.
    """

    def __init__(self, options: SessionOptions, tls_works: bool = True, slow: bool = False) -> None:
        self.session = Session(options)
        self.options = options
        self.tls_works = tls_works
        self.slow = slow
        self.pieces: list[bytes] = []
        self.events: list[Event] = []
        self.sent: list[Envelope] = []
        self.clear = b""
        self.inside = b""

    def feed(self, octets: bytes) -> None:
        self.react(self.session.receive_data(octets))
        if self.pieces:
            self.give()
            self.react([])

    def give(self) -> None:
        if not self.session.wants_body:
            self.pieces.clear()
        if self.pieces:
            self.session.send_body(self.pieces.pop(0), last=not self.pieces)

    def react(self, events: list[Event]) -> None:
        for event in events:
            assert not self.events or not isinstance(self.events[-1], Failed), "something came after the end"
            self.events.append(event)
            if isinstance(event, BodyWanted):
                self.pieces = [b".\r\n", b"the content\r\n"]
                while self.pieces and not self.slow:
                    self.give()
        if self.session.takes_envelope and len(self.sent) < len(ENVELOPES):
            self.sent.append(ENVELOPES[len(self.sent)])
            self.react(self.session.send(self.sent[-1]))
        if self.session.secure:
            self.inside += self.session.data_to_send()
        else:
            self.clear += self.session.data_to_send()
        if events and isinstance(events[-1], StartTLS):
            if self.tls_works:
                self.session.tls_established()
                self.react([])
            else:
                self.react(self.session.tls_failed("the certificate has expired"))

    def end(self, silently: bool = False) -> None:
        """Hang up, or say nothing more, and look whether the accounts balance and nothing went out in the clear."""
        self.react(self.session.timed_out() if silently else self.session.connection_lost("EOF"))
        self.check_accounts()
        self.check_secrets()

    def check_accounts(self) -> None:
        """No envelope forgotten, and each recipient's fate told once."""
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

    def check_secrets(self) -> None:
        """Where TLS is required nothing of a message and no password goes out in the clear. Texts are safe to print."""
        if self.options.tls in ("encrypt", "verify"):
            said = {line.split(b" ")[0] for line in self.clear.split(b"\r\n")}
            assert said <= {b"", b"EHLO", b"HELO", b"LHLO", b"STARTTLS"}
        if self.options.tls == "opportunistic" and self.options.credentials:
            assert b"AUTH" not in self.clear
            assert b"MAIL" not in self.clear
        if self.options.credentials and Ready() in self.events:
            assert b"AUTH" in self.clear + self.inside
        for event in self.events:
            outcomes = event.outcomes if isinstance(event, Finished) else ()
            for text in [outcome.text for outcome in outcomes] + (
                [event.error.text] if isinstance(event, Failed) else []
            ):
                assert text.isascii()
                assert text.isprintable() or not text
                assert len(text) <= 1200
                assert SECRET not in text


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
        b"250-mx\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 SMTPUTF8\r\n",
        b"250 ok\r\n",
        b"235 ok\r\n",
        b"334 \r\n",
        b"354 go\r\n",
        b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n",
        b"250 ok\r\n250 ok\r\n250 ok\r\n250 ok\r\n",
        b"503 5.5.1 out of turn\r\n",
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
    chunking=st.booleans(),
)


@given(options, speech, st.booleans(), st.booleans(), st.booleans())
@settings(max_examples=400)
def test_nothing_that_a_server_says_gets_through(options, speech, tls_works, silently, slow):
    """Plausible replies and arbitrary octets, in any order."""
    driver = Driver(options, tls_works, slow)
    for octets in speech:
        driver.feed(octets)
    driver.end(silently)


@given(options, st.lists(st.binary(max_size=200), max_size=20))
@settings(max_examples=200)
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
def test_a_dialogue_cut_anywhere_is_the_same(cuts):
    """At any places of any of its parts."""
    pieces_of = []
    for part, places in zip(LEGAL, cuts, strict=True):
        edges = sorted({0, len(part), *(place for place in places if place < len(part))})
        pieces_of.append([part[start:end] for start, end in pairwise(edges)])
    assert played(pieces_of) == WHOLE


WITH_TLS: Final = SessionOptions(hostname="me.example", tls="verify", credentials=Credentials("user", SECRET))
OVER_LMTP: Final = SessionOptions(hostname="me.example", tls="none", lmtp=True)
LEGAL_LMTP: Final = [
    b"220 mx.example LMTP\r\n",
    b"250-mx.example\r\n250-PIPELINING\r\n250-SMTPUTF8\r\n250 8BITMIME\r\n",
    b"250 ok\r\n250 ok\r\n250 ok\r\n550 5.1.1 no\r\n354 go\r\n",
    b"250 2.0.0 bob has it\r\n",
    b"452 4.2.2 eve is full\r\n",
    b"250 ok\r\n250 ok\r\n354 go\r\n",
    b"250 2.0.0 bob has it\r\n250 ok\r\n250 ok\r\n354 go\r\n",
    b"550 5.7.1 nobody has it\r\n",
]


def test_the_legal_dialogue_over_lmtp_comes_to_its_end():
    """With an answer for each recipient."""
    driver = Driver(OVER_LMTP)
    for part in LEGAL_LMTP:
        driver.feed(part)
    finished = [event for event in driver.events if isinstance(event, Finished)]
    codes = [[outcome.code for outcome in event.outcomes] for event in finished]
    assert codes == [[250, 452, 550], [250], [550]]


IN_CHUNKS: Final = SessionOptions(hostname="me.example", tls="none")
LEGAL_CHUNKS: Final = [
    b"220 mx.example ESMTP\r\n",
    b"250-mx.example\r\n250-PIPELINING\r\n250-CHUNKING\r\n250-SMTPUTF8\r\n250 8BITMIME\r\n",
    b"250 ok\r\n250 ok\r\n550 5.1.1 no\r\n250 ok\r\n",
    b"250 3 octets\r\n250 2.0.0 taken\r\n",
    b"250 reset\r\n250 ok\r\n250 ok\r\n",
    b"452 4.3.1 disk full\r\n",
    b"503 5.5.1 out of turn\r\n",
    b"250 reset\r\n250 ok\r\n",
    b"550 5.1.1 no\r\n",
    b"503 5.5.1 nobody\r\n503 5.5.1 nobody\r\n",
    b"250 reset\r\n",
]
"""Each envelope is sent ahead of the answers to the one before."""


def test_the_legal_dialogue_in_chunks_comes_to_its_end():
    """One that is taken, one that is refused in the middle, one that nobody gets."""
    driver = Driver(IN_CHUNKS)
    for part in LEGAL_CHUNKS:
        driver.feed(part)
    assert [type(event) for event in driver.events] == [Ready, *[BodyWanted] * 3, *[Finished] * 3]
    finished = [event for event in driver.events if isinstance(event, Finished)]
    assert [[outcome.code for outcome in event.outcomes] for event in finished] == [[250, 550, 250], [452], [550]]
    assert driver.clear.count(b"BDAT 13 LAST\r\nthe content\r\nRSET\r\n") == 3  # twice ahead of the next
    assert driver.session.idle


@st.composite
def gone_wrong(draw: st.DrawFn, legal: list[bytes]) -> list[bytes]:
    """The legal dialogue, but for places where something else is said, or nothing, or it comes twice or too early."""
    parts = list(legal)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(parts) - 1))
        change = draw(st.sampled_from(["other", "inserted", "left out", "twice", "early", "code", "cut"]))
        if change == "other":
            parts[place] = draw(st.one_of(likely, lines, st.binary(max_size=40)))
        elif change == "inserted":
            parts.insert(place, draw(st.one_of(likely, lines, st.binary(max_size=40))))
        elif change == "left out":
            parts[place] = b""
        elif change == "twice":
            parts[place] *= 2
        elif change == "early":
            parts[place] += parts[(place + 1) % len(parts)]
        elif change == "code":
            parts[place] = draw(codes) + parts[place][3:]
        else:
            parts[place] = parts[place][: draw(st.integers(0, len(parts[place])))]
    return parts


@given(gone_wrong(LEGAL), st.booleans(), st.booleans())
@settings(max_examples=400)
def test_a_dialogue_with_tls_and_a_password_that_goes_wrong_anywhere_keeps_its_secrets(parts, tls_works, silently):
    """STARTTLS, AUTH LOGIN and pipelined envelopes, each with something amiss: also octets that come before the
    handshake that they would have to come after."""
    driver = Driver(WITH_TLS, tls_works)
    for part in parts:
        driver.feed(part)
    driver.end(silently)


@given(gone_wrong(LEGAL_LMTP), st.booleans())
@settings(max_examples=400)
def test_a_dialogue_over_lmtp_that_goes_wrong_anywhere_forgets_nobody(parts, silently):
    """Where each recipient has an answer of its own to wait for."""
    driver = Driver(OVER_LMTP)
    for part in parts:
        driver.feed(part)
    driver.end(silently)


@given(gone_wrong(LEGAL_CHUNKS), st.booleans(), st.booleans(), st.booleans())
@settings(max_examples=600)
def test_a_dialogue_in_chunks_that_goes_wrong_anywhere_forgets_nobody(parts, silently, slow, lmtp):
    """Where everything is out before anything is answered; over LMTP the answers are too few by themselves."""
    driver = Driver(structs.replace(IN_CHUNKS, lmtp=lmtp), slow=slow)
    for part in parts:
        driver.feed(part)
    driver.end(silently)


@given(gone_wrong(LEGAL))
def test_octets_that_come_with_the_answer_to_starttls_end_the_attempt(parts):
    """Nobody knows who put them there: they are never taken for an answer that came inside TLS."""
    driver = Driver(WITH_TLS)
    for part in LEGAL[:2]:
        driver.feed(part)
    driver.feed(LEGAL[2] + b"".join(parts))
    if b"".join(parts):
        assert isinstance(driver.events[-1], Failed)
        assert driver.inside == b""


# the reader of replies by itself

REPLY_PIECES: Final = st.sampled_from(
    [
        *(b"250", b"250 ok", b"250-", b"550 5.1.1 no", b"199", b"600", b"5.1.1 ", b"\r\n", b"\n", b"\r", b" ", b"-"),
        *(b"\0", b"\x1b[2J", b"\xff", "\u202e".encode(), b"x" * 8200, b"250-" + b"y" * 8000 + b"\r\n"),
    ]
)


def read_in(pieces: list[bytes]) -> tuple[list[Reply], str]:
    """The replies in these octets, and how it ended: the error, or nothing."""
    reader, replies = ReplyReader(), []
    try:
        for piece in pieces:
            replies += reader.replies(piece)  # and keep those before an error
    except ReplyError as error:
        return replies, str(error)
    return replies, ""


@given(st.lists(REPLY_PIECES | st.binary(max_size=20), max_size=12), st.lists(st.integers(0, 9000), max_size=5))
@settings(max_examples=400)
def test_any_octets_are_replies_or_a_reply_error_whatever_way_they_are_cut(pieces, cuts):
    """Bounded, escaped, the same for every cutting; and nothing else is raised."""
    octets = b"".join(pieces)
    edges = sorted({0, len(octets), *(cut for cut in cuts if cut < len(octets))})
    replies, error = read_in([octets])
    assert read_in([octets[start:end] for start, end in pairwise(edges)]) == (replies, error)
    assert error.isascii()
    assert error.isprintable()
    for reply in replies:
        assert 200 <= reply.code < 600
        assert reply.text.isascii()
        assert reply.text.isprintable()
        assert len(reply.text) <= TEXT_LIMIT
        assert reply.enhanced == "" or reply.enhanced.startswith(f"{reply.digit}.")
        assert sum(map(len, reply.lines)) <= REPLY_LIMIT
