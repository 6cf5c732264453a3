"""Streams under whatever may happen to them, in whatever order: the octets and the grammar hold."""

from __future__ import annotations

import re
import ssl

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deferred.testing import Clock, memory_transport_pair
from tests.deferred.transports import Note

GRAMMAR = re.compile(r"made (data |pause |resume )*(eof )?(pause |resume )*(lost )?")

STEPS = st.one_of(
    st.tuples(st.just("write"), st.integers(0, 1), st.integers(0, 200_000)),
    st.tuples(st.just("writelines"), st.integers(0, 1), st.lists(st.integers(0, 3000), max_size=80)),
    st.tuples(st.just("pause"), st.integers(0, 1)),
    st.tuples(st.just("resume"), st.integers(0, 1)),
    st.tuples(st.just("limits"), st.integers(0, 1), st.integers(0, 100_000)),
    st.tuples(st.just("advance"), st.floats(0, 2)),
)
ENDS = st.sampled_from(["close", "abort", "eof", "none"])


def play(clock, ends, sent, step):
    """Do one step, and note what it sends."""
    name = step[0]
    if name == "advance":
        clock.advance(step[1])
        return
    side = step[1]
    transport = ends[side].transport
    if name == "write":
        data = bytes([len(sent[side]) % 251]) * step[2]
        transport.write(data)
        sent[side] += data
    elif name == "writelines":
        pieces = [bytes([(len(sent[side]) + number) % 251]) * size for number, size in enumerate(step[2])]
        transport.writelines(pieces)
        sent[side] += b"".join(pieces)
    elif name == "limits":
        transport.set_write_buffer_limits(step[2])
    else:
        getattr(transport, f"{name}_reading")()


@pytest.fixture(scope="module")
def contexts(authority, leaf):
    """Made once: keys are dear."""
    client, server = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.configure_trust(client)
    leaf.configure_cert(server)
    return client, server


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(STEPS, max_size=25),
    secure_at=st.one_of(st.none(), st.integers(0, 5)),
    end=ENDS,
    latency=st.sampled_from([0.0, 0.1]),
    window=st.sampled_from([700, 20_000, 300_000]),
)
def test_octets_and_grammar_hold_in_any_order_of_things(contexts, steps, secure_at, end, latency, window):
    """What arrives is a beginning of what was sent, all of it unless it was aborted; each call in its place."""
    clock = Clock()
    ends = (Note(), Note())
    memory_transport_pair(clock, *ends, latency=latency, window=window)
    sent = [bytearray(), bytearray()]
    for number, step in enumerate(steps):
        if number == secure_at and not any(sent):
            secured = [
                ends[1].transport.start_tls(contexts[1], server_side=True),
                ends[0].transport.start_tls(contexts[0], server_hostname="mx.example"),
            ]
            for shaking in secured:
                shaking.add_errback(lambda failure: failure.check(ConnectionError) or failure)  # aborted meanwhile
        play(clock, ends, sent, step)
    secure = ends[0].transport.get_extra_info("ssl_object") is not None
    if end != "abort":
        for note in ends:
            note.transport.resume_reading()
        clock.advance(100_000)
        assert [bytes(octets) for octets in sent] == [ends[1].data, ends[0].data]
        assert all(note.transport.get_write_buffer_size() == 0 for note in ends)
    if end == "eof" and not secure:
        ends[0].transport.write_eof()
    elif end != "none":
        getattr(ends[0].transport, "abort" if end == "abort" else "close")()
    for note in ends:
        note.transport.resume_reading()
    clock.advance(100_000)
    for note, octets in zip(ends, reversed(sent), strict=True):
        assert bytes(octets).startswith(note.data)
        assert GRAMMAR.fullmatch(" ".join(note.calls) + " "), note.calls
        assert note.calls.count("pause") - note.calls.count("resume") in (0, 1)
        if end in ("close", "abort"):
            assert note.calls[-1] == "lost"
    assert clock.pending == 0
