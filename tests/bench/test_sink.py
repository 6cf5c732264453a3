"""The sinks that benchmarks send to: both count the same, whatever way the octets are cut."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.sink import Endpoint, Sink, compiled, read_log
from bench.wrong import Wrong

MESSAGE = b"Subject: x\r\nMessage-ID: <one@bench.example>\r\n\r\ntext\r\n"
LETTER = b"MAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\n"


@pytest.fixture(params=["C", "Python"])
def python(request: pytest.FixtureRequest) -> bool:
    """Whether it is the sink in Python."""
    if request.param == "C" and compiled() is None:
        pytest.skip("there is no C compiler")
    return bool(request.param == "Python")


@pytest.fixture
def sink(python: bool, tmp_path: Path) -> Iterator[Sink]:
    with Sink(log=tmp_path / "log", in_python=python) as sink:
        yield sink


def talk(sink: Sink, *pieces: bytes) -> bytes:
    """All that the sink says to these pieces, each written once the one before has been read."""
    read = sum(seen.octets for seen in sink.report().endpoints)
    with socket.create_connection(("127.0.0.1", sink.port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        heard = connection.recv(1000)
        for piece in pieces:
            connection.sendall(piece)
            read += len(piece)
            while sum(seen.octets for seen in sink.report().endpoints) < read:
                pass
        connection.shutdown(socket.SHUT_WR)
        while octets := connection.recv(65536):
            heard += octets
    return heard


def codes(heard: bytes) -> list[int]:
    return [int(line[:3]) for line in heard.split(b"\r\n")[1:-1] if line[3:4] == b" "]


def test_a_pipelined_message_is_counted_and_written_down(sink: Sink, tmp_path: Path) -> None:
    """MAIL, RCPT and DATA in one write are answered together; the message's size is without its final dot."""
    heard = talk(sink, b"EHLO me\r\n", LETTER + b"DATA\r\n", MESSAGE + b".\r\nQUIT\r\n")
    assert codes(heard) == [250, 250, 250, 354, 250, 221]
    report = sink.stop()
    report.check(1)
    seen = report.endpoints[0]
    assert (seen.recipients, seen.connections, seen.open, seen.most) == (1, 1, 0, 1)
    [logged] = read_log(tmp_path / "log")
    assert logged.message_id == "<one@bench.example>"
    assert (logged.octets, logged.recipients) == (len(MESSAGE), 1)
    assert logged.at == pytest.approx(seen.last, abs=1e-5)


@pytest.mark.parametrize("cut", range(1, len(b"DATA\r\n" + MESSAGE + b".\r\n")))
def test_the_end_of_a_message_is_found_wherever_it_is_cut(cut: int, one_sink: Sink) -> None:
    """Two writes, cut at every octet, are one message."""
    before = one_sink.report().messages
    octets = b"DATA\r\n" + MESSAGE + b".\r\n"
    heard = talk(one_sink, LETTER, octets[:cut], octets[cut:])
    assert codes(heard) == [250, 250, 354, 250]
    assert one_sink.report().messages == before + 1


@pytest.fixture(scope="module", params=["C", "Python"])
def one_sink(request: pytest.FixtureRequest) -> Iterator[Sink]:
    if request.param == "C" and compiled() is None:
        pytest.skip("there is no C compiler")
    with Sink(in_python=request.param == "Python") as sink:
        yield sink


@pytest.mark.parametrize("content", [b"", b"..\r\n", b"a\r\n..\r\n.\rb\r\n", b"\r\n\r\n", b"a.\r\n"])
def test_what_looks_like_the_end_of_a_message_is_none(one_sink: Sink, content: bytes) -> None:
    """Only a line that is a lone dot ends it, also as the very first line."""
    before = one_sink.report().messages
    heard = talk(one_sink, LETTER + b"DATA\r\n" + content + b".\r\n" + LETTER + b"DATA\r\n" + MESSAGE + b".\r\n")
    assert codes(heard) == [250, 250, 354, 250] * 2
    assert one_sink.report().messages == before + 2


def test_chunks_are_counted_by_their_octets(sink: Sink, tmp_path: Path) -> None:
    """What a chunk holds means nothing: neither a lone dot nor QUIT; one answer each, and one message at LAST."""
    content = b"Message-ID:\r\n <two@bench.example>\r\n\r\n.\r\nQUIT\r\n"
    heard = talk(sink, LETTER + b"BDAT %d\r\n" % len(content) + content + b"BDAT 0 LAST\r\n" + b"NOOP\r\n")
    assert codes(heard) == [250, 250, 250, 250, 250]
    sink.stop().check(1)
    assert [(one.octets, one.message_id) for one in read_log(tmp_path / "log")] == [
        (len(content), "<two@bench.example>")
    ]


@pytest.mark.parametrize("cut", range(1, len(b"BDAT 5 LAST\r\nab\r\ncRSET\r\n")))
def test_a_chunk_is_whole_wherever_it_is_cut(cut: int, one_sink: Sink) -> None:
    """Two writes, cut at every octet, are one chunk."""
    before = one_sink.report().messages
    octets = b"BDAT 5 LAST\r\nab\r\ncRSET\r\n"
    assert codes(talk(one_sink, LETTER, octets[:cut], octets[cut:])) == [250, 250, 250, 250]
    assert one_sink.report().messages == before + 1


@pytest.mark.parametrize(
    ("said", "answers"),
    [
        (b"DATA\r\n", [503]),
        (b"RCPT TO:<b@b.example>\r\n", [503]),
        (LETTER + b"MAIL FROM:<a@a.example>\r\n", [250, 250, 503]),
        (b"BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n", [503, 250]),
        (LETTER + b"BDAT some\r\nNOOP\r\n", [250, 250, 501]),
        (LETTER + b"BDAT 2\r\n\r\nDATA\r\n", [250, 250, 250, 503]),
        (b"HUH\r\n", [500]),
    ],
)
def test_what_makes_no_sense_is_refused_and_voids_the_run(sink: Sink, said: bytes, answers: list[int]) -> None:
    """A client that talks out of turn is no client to measure."""
    assert codes(talk(sink, said)) == answers
    report = sink.stop()
    assert (report.errors, report.messages) == (1, 0)
    with pytest.raises(Wrong, match="1 errors"):
        report.check(0)


def test_every_group_of_replies_takes_its_time(python: bool) -> None:
    """Greeting, then three groups: each leaves its delay after what it answers came."""
    with far_sink(python) as sink, socket.create_connection(("127.0.0.1", sink.port)) as connection:
        began = time.monotonic()
        for said in (b"EHLO me\r\n", LETTER + b"DATA\r\n", MESSAGE + b".\r\n", b""):
            connection.recv(1000)
            connection.sendall(said)
        assert time.monotonic() - began >= 0.2


def test_replies_do_not_leave_before_their_time_with_those_before(python: bool) -> None:
    """What comes while the replies to something earlier are held back has its own delay."""
    with far_sink(python) as sink, socket.create_connection(("127.0.0.1", sink.port)) as connection:
        connection.recv(1000)
        connection.sendall(b"NOOP\r\n")
        while not sink.report().endpoints[0].octets:
            pass
        second = time.monotonic()
        connection.sendall(b"NOOP\r\n")
        heard = b""
        while heard.count(b"\n") < 2:
            heard += connection.recv(1000)
        assert time.monotonic() - second >= 0.05


def far_sink(python: bool) -> Sink:
    return Sink([Endpoint(delay=0.05)], in_python=python)


def test_a_tarpit_takes_messages_in_and_never_says_so(python: bool) -> None:
    with Sink([Endpoint(tarpit=True)], in_python=python) as sink:
        assert codes(talk(sink, LETTER + b"DATA\r\n" + MESSAGE + b".\r\n")) == [250, 250, 354]
        assert sink.stop().messages == 0


def test_a_silent_endpoint_never_greets(python: bool) -> None:
    with Sink([Endpoint(silent=True), Endpoint()], in_python=python) as sink:
        with socket.create_connection(("127.0.0.1", sink.port)) as connection:
            connection.settimeout(0.05)
            with pytest.raises(TimeoutError):
                connection.recv(1)
        assert [seen.connections for seen in sink.stop().endpoints] == [1, 0]


def test_ehlo_offers_what_it_is_told_to(python: bool) -> None:
    with Sink(keywords=("PIPELINING", "SIZE 9"), in_python=python) as sink:
        heard = talk(sink, b"EHLO me\r\n")
    assert heard.split(b"\r\n")[1:] == [b"250-sink.example", b"250-PIPELINING", b"250-SIZE 9", b"250 HELP", b""]


def test_the_report_comes_by_itself_with_the_last_expected_message(python: bool) -> None:
    with Sink(expected=2, in_python=python) as sink:
        talk(sink, (LETTER + b"DATA\r\n" + MESSAGE + b".\r\n") * 2)
        report = sink.wait(10)
    assert (report.why, report.messages) == ("expected", 2)
    assert 0 < report.connected <= report.endpoints[0].first <= report.last <= report.now


def test_too_few_messages_are_told_of_in_time(python: bool) -> None:
    with Sink(expected=2, in_python=python) as sink:
        talk(sink, LETTER + b"DATA\r\n" + MESSAGE + b".\r\n")
        with pytest.raises(Wrong, match="only 1 messages"):
            sink.wait(0.01)
