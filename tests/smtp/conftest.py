"""Dialogues as tests: what the client must say, what the server says, line by line."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from textwrap import dedent
from typing import Any

import pytest

from service.message.outcome import Outcome
from service.smtp.auth import Credentials
from service.smtp.envelope import Envelope
from service.smtp.errors import DeliveryError
from service.smtp.events import BodyWanted, Event, Failed, Finished, Ready, StartTLS
from service.smtp.options import SessionOptions
from service.smtp.session import Session

ANN = "ann@a.example"
BOB = "bob@b.example"
EVE = "eve@b.example"


class Talk:
    """Drives a session through a script and keeps what came of it.

    Lines that stand together go together: what the client says between two answers must be exactly the lines that are
    written there, and the server's lines up to the next `C:` arrive in one read. Other lines: `EOF`, `TIMEOUT`, `TLS`
    (the handshake succeeds), `NO TLS why` (it fails), `MORE` (the driver gives the next piece of content; it gives the
    first when it is wanted). A `C:` line that ends in a backslash has no line end.
    """

    def __init__(self, session: Session, envelopes: Iterable[Envelope], pieces: Iterable[bytes], ahead: bool) -> None:
        self.session = session
        self.events: list[Event] = []
        self._envelopes = list(envelopes)
        self._pieces = list(pieces)
        self._given = 0
        self._ahead = ahead

    def follow(self, script: str) -> Talk:
        """Play the script to its end; the client must have nothing more to say then."""
        lines = [line.strip() for line in dedent(script).strip().splitlines() if line.strip()]
        said: list[bytes] = []
        for line in lines:
            if line.startswith("C: "):
                if said:
                    self.feed(b"".join(said))
                    said = []
                self._must_say(line[3:])
                continue
            if line.startswith("S: "):
                said.append(line[3:].encode().decode("unicode_escape").encode("latin-1") + b"\r\n")
                continue
            if said:
                self.feed(b"".join(said))
                said = []
            self._happen(line)
        if said:
            self.feed(b"".join(said))
        assert self._said() == b""
        return self

    _heard = b""

    def _said(self) -> bytes:
        self._heard += self.session.data_to_send()
        return self._heard

    def _must_say(self, line: str) -> None:
        wanted = line[:-1].encode() if line.endswith("\\") else line.encode() + b"\r\n"
        said = self._said()
        assert said.startswith(wanted), f"the client says {said!r}, not {wanted!r}"
        self._heard = said[len(wanted) :]

    def _happen(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if line == "EOF":
            self.react(self.session.connection_lost("EOF"))
        elif line == "TIMEOUT":
            self.react(self.session.timed_out())
        elif line == "TLS":
            self.session.tls_established()
        elif line == "MORE":
            self._give()
            self._next()
        elif word == "NO":
            self.react(self.session.tls_failed(rest.removeprefix("TLS ")))
        else:
            raise AssertionError(f"not a line of a dialogue: {line}")

    def feed(self, octets: bytes) -> None:
        """Let octets arrive; the client must have said all that the script has of it."""
        assert self._said() == b"", f"the client says more than the script has: {self._heard!r}"
        self.react(self.session.receive_data(octets))

    def react(self, events: list[Event]) -> None:
        """Do what a driver does."""
        self.events += events
        for event in events:
            if isinstance(event, BodyWanted):
                self._given = 0
                self._give()
            if isinstance(event, Ready | Finished | BodyWanted):
                self._next()

    def _give(self) -> None:
        self._given += 1
        self.session.send_body(self._pieces[self._given - 1], last=self._given == len(self._pieces))

    def _next(self) -> None:
        if self._envelopes and (self.session.takes_envelope if self._ahead else self.session.idle):
            self.react(self.session.send(self._envelopes.pop(0)))

    # what came of it

    @property
    def outcomes(self) -> list[tuple[Outcome, ...]]:
        """The outcomes of each finished envelope."""
        return [event.outcomes for event in self.events if isinstance(event, Finished)]

    def states(self) -> dict[str, str]:
        """The state of each recipient of the only finished envelope."""
        (outcomes,) = self.outcomes
        return {outcome.address: str(outcome.state) for outcome in outcomes}

    @property
    def failed(self) -> Failed:
        """The end of the conversation."""
        (event,) = [event for event in self.events if isinstance(event, Failed)]
        assert event is self.events[-1]
        return event

    @property
    def error(self) -> DeliveryError:
        """Why the conversation ended."""
        return self.failed.error

    @property
    def ready(self) -> bool:
        """Whether the handshake came to its end."""
        return Ready() in self.events

    @property
    def wants_tls(self) -> bool:
        """Whether the driver was told to begin the TLS handshake."""
        return StartTLS() in self.events


@pytest.fixture
def meet() -> Callable[..., Talk]:
    """Play a script from the greeting on; the keywords are those of `SessionOptions`, and `password` for "user"."""

    def meet(script: str, *, password: str | None = None, envelopes: Iterable[Envelope] = (), **options: Any) -> Talk:
        options = {"hostname": "me.example", "tls": "none", "host": "mx.example:25", **options}
        if password is not None:
            options["credentials"] = Credentials("user", password)
        talk = Talk(Session(SessionOptions(**options)), envelopes, [b""], False)
        return talk.follow(script)

    return meet


@pytest.fixture
def talk() -> Callable[..., Talk]:
    """Play a script from the first MAIL on, with a server that offers what `offers` says."""

    def talk(
        script: str,
        *,
        sender: str = ANN,
        recipients: tuple[str, ...] = (BOB, EVE),
        content: bytes | tuple[bytes, ...] = b"hello\r\n",
        offers: str = "PIPELINING",
        size: int = 0,
        eight_bit: bool = False,
        more: Iterable[Envelope] = (),
        ahead: bool = False,
        lmtp: bool = False,
        **more_options: Any,
    ) -> Talk:
        options = SessionOptions(hostname="me.example", tls="none", host="mx.example:25", lmtp=lmtp, **more_options)
        envelope = Envelope(sender, recipients, size, eight_bit)
        pieces = (content,) if isinstance(content, bytes) else content
        talk = Talk(Session(options), [envelope, *more], pieces, ahead)
        offered = "".join(f"S: 250-{line}\n" for line in ("mx.example", *offers.splitlines()))
        hello = "LHLO" if lmtp else "EHLO"
        return talk.follow(f"S: 220 mx.example\nC: {hello} me.example\n{offered}S: 250 HELP\n{dedent(script)}")

    return talk
