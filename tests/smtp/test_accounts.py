"""The client's accounts against a server's own: what each believes of every recipient must agree."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.message.outcome import State
from service.smtp.envelope import Envelope
from service.smtp.errors import BrokenAnswer, ConfirmationLost, DeliveryError, HostFailure
from service.smtp.events import BodyWanted, Event, Failed, Finished
from service.smtp.options import SessionOptions
from service.smtp.session import Session

CONTENT: Final = b"Subject: dots\r\n\r\n.\r\n..\r\nend.\r\n.\r\n"
RECIPIENTS: Final = ("r0@b.example", "r1@b.example", "r2@b.example")
STATES: Final = {"2": State.DELIVERED, "4": State.WAITING, "5": State.FAILED}


class Gone(Exception):
    """The server has hung up."""


class Server:
    """An SMTP (or LMTP) server that answers as it is told, and keeps what it decided.

    `decide` is asked at each command: "ok", "4" or "5" (a refusal), "421", "junk" or "drop" (hang up without a word).
    `verdicts` has what it said of each recipient, by sender; `in_doubt` the senders whose final dot it never answered.
    `heard` is all that it was told.
    """

    def __init__(self, decide: Callable[[], str], pipelining: bool, lmtp: bool, chunking: bool = False) -> None:
        self.verdicts: dict[str, dict[str, State]] = {}
        self.in_doubt: set[str] = set()
        self.received: list[bytes] = []
        self.heard = b""
        self._decide = decide
        self._pipelining = pipelining
        self._lmtp = lmtp
        self._chunking = chunking
        self._octets = b""
        self._sender: str | None = None
        self._accepted: list[str] = []
        self._refused_mail: str | None = None
        self._content: list[bytes] | None = None
        self._chunk: tuple[int, bool] | None = None
        self._chunks: list[bytes] = []
        self._spoiled = False

    def hear(self, octets: bytes) -> Iterator[bytes]:
        """Give the answers to what has come; `Gone` ends it."""
        self.heard += octets
        self._octets += octets
        while self._chunk is not None or b"\r\n" in self._octets:
            if self._chunk is not None:
                size, last = self._chunk
                assert len(self._octets) >= size, "a chunk is written as a whole"
                chunk, self._octets = self._octets[:size], self._octets[size:]
                self._chunk = None
                yield from self._take_chunk(chunk, last)
                continue
            line, _, self._octets = self._octets.partition(b"\r\n")
            if not self._pipelining:
                assert self._octets == b"" or self._content is not None or line == b"DATA", "written ahead"
            yield from self._content_line(line) if self._content is not None else self._command(line.decode())

    def _command(self, line: str) -> Iterator[bytes]:
        verb = line.split(":")[0].split(" ")[0]
        if verb in ("EHLO", "LHLO"):
            chunking = b"250-CHUNKING\r\n" if self._chunking else b""
            pipelining = b"250-PIPELINING\r\n" if self._pipelining else b""
            yield b"250-mx\r\n" + chunking + pipelining + b"250 SIZE\r\n"
        elif verb == "MAIL":
            yield from self._mail(line.partition("<")[2].partition(">")[0])
        elif verb == "RCPT":
            yield from self._rcpt(line.partition("<")[2].partition(">")[0])
        elif verb == "DATA":
            assert not (self._chunking and self._pipelining), "chunks were offered"
            yield from self._data()
        elif verb == "BDAT":
            assert self._chunking, "chunks were not offered"
            _, size, *words = line.split(" ")
            self._chunk = (int(size), words == ["LAST"])
        elif verb == "RSET":
            self._forget()
            yield b"250 ok\r\n"
        else:
            raise AssertionError(f"the client says {line!r}")

    def _mail(self, sender: str) -> Iterator[bytes]:
        assert self._sender is None, "a transaction was open"
        code = self._answer(sender, RECIPIENTS)
        if code == "2":
            self._sender = sender
        yield f"{code}50 mail\r\n".encode()

    def _rcpt(self, recipient: str) -> Iterator[bytes]:
        if self._sender is None:
            yield b"503 no mail\r\n"
            return
        code = self._answer(self._sender, [recipient])
        if code == "2":
            self._accepted.append(recipient)
        yield f"{code}50 rcpt\r\n".encode()

    def _data(self) -> Iterator[bytes]:
        if self._sender is None or (not self._accepted and self._lmtp):
            yield b"503 no rcpt\r\n"
            return
        code = self._answer(self._sender, self._accepted)
        if code == "2":
            self._content = []
        yield b"354 go\r\n" if code == "2" else f"{code}51 data\r\n".encode()

    def _content_line(self, line: bytes) -> Iterator[bytes]:
        assert self._content is not None
        assert self._sender is not None
        if line != b".":
            self._content.append(line.removeprefix(b".") + b"\r\n")
            return
        sender, accepted, content = self._sender, self._accepted, b"".join(self._content)
        self._forget()
        if not accepted:
            assert content == b"", "content for nobody"
            yield b"554 nobody\r\n"
            return
        self.received.append(content)
        groups = [[each] for each in accepted] if self._lmtp else [accepted]
        for group in groups:
            self.in_doubt.add(sender)
            code = self._answer(sender, group, final=True, last=group is groups[-1])
            self.in_doubt.discard(sender)
            yield f"{code}50 dot\r\n".encode()

    def _take_chunk(self, chunk: bytes, last: bool) -> Iterator[bytes]:
        if self._sender is None or not self._accepted or self._spoiled:
            if self._spoiled and self._lmtp and last and len(self._accepted) > 1:
                raise Gone(b"")  # once or twice? nobody knows
            yield b"503 out of turn\r\n"
            return
        self._chunks.append(chunk)
        if not last:
            code = self._answer(self._sender, self._accepted)
            self._spoiled = code != "2"
            yield f"{code}52 chunk\r\n".encode()
            return
        self.received.append(b"".join(self._chunks))
        sender, groups = self._sender, [[each] for each in self._accepted] if self._lmtp else [self._accepted]
        self._spoiled = True
        for group in groups:
            self.in_doubt.add(sender)
            code = self._answer(sender, group, final=True, last=group is groups[-1])
            self.in_doubt.discard(sender)
            self._spoiled = self._spoiled and code != "2"
            if group is groups[-1] and not self._spoiled:
                self._forget()  # else it waits for RSET
            yield f"{code}50 last\r\n".encode()

    def _answer(
        self, sender: str, recipients: list[str] | tuple[str, ...], final: bool = False, last: bool = True
    ) -> str:
        """Decide; a refusal, or the final answer, is the verdict on these recipients."""
        decision = self._decide()
        verdicts = self.verdicts.setdefault(sender, {})
        if decision in ("421", "junk", "drop"):
            if decision == "421" and last:
                self.in_doubt.discard(sender)
            raise Gone({"421": b"421 bye\r\n", "junk": b"what?\r\n", "drop": b""}[decision])
        code = "2" if decision == "ok" else decision
        if code != "2" or final:
            verdicts.update((recipient, STATES[code]) for recipient in recipients if recipient not in verdicts)
        return code

    def _forget(self) -> None:
        self._sender, self._accepted, self._content = None, [], None
        self._chunks, self._spoiled = [], False


class Client:
    """Drives a session against the server until all is sent or one of them hangs up."""

    def __init__(
        self, server: Server, lmtp: bool, ahead: bool, cut: Callable[[bytes], list[bytes]], slow: bool = False
    ) -> None:
        self.session = Session(SessionOptions(hostname="me.example", tls="none", lmtp=lmtp))
        self.events: list[Event] = []
        self.sent: list[str] = []
        self.left = ""
        """With what the server hung up; "" if it did not."""
        self._server = server
        self._ahead = ahead
        self._cut = cut
        self._slow = slow
        self._pieces: list[bytes] = []

    def run(self) -> None:
        answer = b"220 hi\r\n"
        try:
            while True:
                for piece in self._cut(answer):
                    self._react(self.session.receive_data(piece))
                self._give()
                if self.session.closed:
                    return
                answer = b""
                for reply in self._server.hear(self.session.data_to_send()):
                    answer += reply
                if not answer and not self._pieces:
                    return
        except Gone as gone:
            self.left = gone.args[0].decode() or "drop"
            self._react(self.session.receive_data(answer + gone.args[0]))
            self._react(self.session.connection_lost("EOF"))

    def _react(self, events: list[Event]) -> None:
        self.events += events
        for event in events:
            if isinstance(event, BodyWanted):
                self._pieces = [CONTENT[:17], CONTENT[17:]]
                while self._pieces and not self._slow:
                    self._give()
        if len(self.sent) < 4 and (self.session.takes_envelope if self._ahead else self.session.idle):
            self.sent.append(f"s{len(self.sent)}@a.example")
            self._react(self.session.send(Envelope(self.sent[-1], RECIPIENTS)))

    def _give(self) -> None:
        """The next piece, if there is one, and if anybody wants it."""
        if not self.session.wants_body:
            self._pieces = []
        if self._pieces:
            self.session.send_body(self._pieces.pop(0), last=not self._pieces)
            self._react([])

    def fates(self) -> list[DeliveryError | Finished]:
        """What became of each envelope, in order."""
        fates: list[DeliveryError | Finished] = []
        for event in self.events:
            if isinstance(event, Finished):
                fates.append(event)
            elif isinstance(event, Failed):
                fates += [event.error, *event.ahead]
        return fates


decisions = st.lists(st.sampled_from(["ok"] * 12 + ["4", "5"] * 3 + ["421", "junk", "drop"]), max_size=20)


def confirmation_lost(server: Server, client: Client, sender: str) -> bool:
    """Whether the server may have this message without the client's knowing.

    After DATA that is what the server says. Chunks are ahead of its answers: whatever is out to its last chunk, and has
    no answer for somebody, may have been taken; unless it said 421, and so that it does nothing more.
    """
    if b"BDAT" not in server.heard or client.left.startswith("421"):
        return sender in server.in_doubt
    spoken = server.heard.partition(b"<%b>" % sender.encode())[2].partition(b"MAIL FROM")[0]
    return b"LAST" in spoken and len(server.verdicts.get(sender, {})) < len(RECIPIENTS)


@given(
    decisions,
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.lists(st.integers(1, 60), max_size=4),
)
@settings(max_examples=1200, deadline=None)
def test_client_and_server_agree_on_every_recipient(decisions, pipelining, chunking, lmtp, ahead, slow, cuts):
    """Whatever is refused where, and wherever the server hangs up."""
    left = iter(decisions)
    server = Server(lambda: next(left, "ok"), pipelining, lmtp, chunking)

    def cut(octets: bytes) -> list[bytes]:
        edges = sorted({0, len(octets), *(place for place in cuts if place < len(octets))})
        return [octets[start:end] for start, end in pairwise(edges)]

    client = Client(server, lmtp, ahead, cut, slow)
    client.run()
    assert set(server.received) <= {CONTENT}
    fates = client.fates()
    if not client.session.closed:
        assert [type(fate) for fate in fates] == [Finished] * 4
    for sender, fate in zip(client.sent, fates, strict=False):
        verdicts = server.verdicts.get(sender, {})
        told = {outcome.address: outcome.state for outcome in fate.outcomes}
        assert told == verdicts
        assert isinstance(fate, Finished) is (len(told) == 3) or isinstance(fate, DeliveryError)
        assert isinstance(fate, ConfirmationLost) is confirmation_lost(server, client, sender)
    assert len(fates) >= len(client.sent)


@pytest.mark.parametrize(
    ("decisions", "kind"),
    [
        (["ok", "ok", "5", "ok", "ok", "ok"], None),
        (["ok", "ok", "5", "ok", "ok", "drop"], ConfirmationLost),
        (["ok", "ok", "5", "ok", "junk"], BrokenAnswer),
    ],
)
def test_the_server_of_this_test_does_what_it_is_told(decisions, kind):
    """Else the test above might agree on nothing."""
    left = iter(decisions)
    server = Server(lambda: next(left, "ok"), pipelining=True, lmtp=False)
    client = Client(server, lmtp=False, ahead=False, cut=lambda octets: [octets])
    client.run()
    assert server.verdicts["s0@a.example"]["r1@b.example"] is State.FAILED
    if kind is None:
        assert len(server.received) == 4
        assert server.verdicts["s3@a.example"] == dict.fromkeys(RECIPIENTS, State.DELIVERED)
    else:
        assert isinstance(client.fates()[0], kind)


@pytest.mark.parametrize(
    ("decisions", "states", "kind"),
    [
        (["ok", "ok", "5", "ok", "ok", "ok"], "df", None),
        (["ok", "ok", "5", "ok", "4"], "wf", None),
        (["ok", "ok", "5", "ok", "ok", "4"], "wf", None),
        (["ok", "ok", "5", "ok", "ok", "drop"], "-f", ConfirmationLost),
        (["ok", "ok", "5", "421"], "-f", HostFailure),
    ],
)
@pytest.mark.parametrize("ahead", [True, False])
def test_the_server_of_this_test_takes_chunks_as_it_is_told(decisions, states, kind, ahead):
    """The first message's fate; all others are delivered where the connection lives on."""
    left = iter(decisions)
    server = Server(lambda: next(left, "ok"), pipelining=True, lmtp=False, chunking=True)
    client = Client(server, lmtp=False, ahead=ahead, cut=lambda octets: [octets])
    client.run()
    verdicts = server.verdicts["s0@a.example"]
    assert [str(verdicts.get(each, "-"))[0] for each in RECIPIENTS[:2]] == list(states)
    if kind is None:
        assert server.verdicts["s3@a.example"] == dict.fromkeys(RECIPIENTS, State.DELIVERED)
        assert server.received[-1] == CONTENT
    else:
        assert type(client.fates()[0]) is kind
