"""From the greeting to the moment when mail may be sent: EHLO, STARTTLS, AUTH, as the route's policy has it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from service.message.outcome import Phase
from service.smtp import command
from service.smtp.auth import MECHANISMS, CredentialsError, Exchange, choose
from service.smtp.errors import HostFailure
from service.smtp.events import Event, Ready, StartTLS
from service.smtp.extensions import NONE, parse_extensions
from service.smtp.flight import Flight
from service.smtp.options import SessionOptions
from service.smtp.reply import Reply, clean_text
from service.smtp.stages import PHASES, Expectation, Stage, Step


class Handshake:
    """Each method is a step after a reply; it returns what the driver has to know and raises `HostFailure`.

    `negotiating`: the TLS handshake is going on, so not an octet may come. `done`: the session takes envelopes.
    """

    __slots__ = (
        "_exchange",
        "_flight",
        "_greeted",
        "_options",
        "done",
        "extensions",
        "negotiating",
        "secure",
        "tls_refusal",
    )

    def __init__(self, options: SessionOptions, flight: Flight) -> None:
        self._options = options
        self._flight = flight
        self._exchange: Exchange | None = None
        self._greeted = False
        self.extensions = NONE
        self.secure = False
        self.negotiating = options.secure
        self.done = False
        self.tls_refusal = ""
        command.hello("EHLO", options.hostname)  # refuses a host name that cannot be sent before anything is
        if not options.secure:
            flight.expect_greeting()

    def _hello(self, verb: str) -> None:
        verb = "LHLO" if self._options.lmtp else verb
        stage = Stage.HELO if verb == "HELO" else Stage.EHLO
        self._flight.ask(command.hello(verb, self._options.hostname), Expectation(stage))

    def greeted(self, _asked: Expectation, _reply: Reply) -> list[Event]:
        """The server is there."""
        self._greeted = True
        self._hello("EHLO")
        return []

    def fall_back(self, _asked: Expectation, reply: Reply) -> list[Event]:
        """EHLO was refused: HELO, unless the server takes no mail at all (RFC 7504) or speaks LMTP."""
        if reply.code == 521 or self._options.lmtp:
            raise refused(Phase.EHLO, reply)
        self._hello("HELO")
        return []

    def learn(self, asked: Expectation, reply: Reply) -> list[Event]:
        """EHLO (or HELO) was answered: take note of what is offered, and see about TLS."""
        self.extensions = NONE if asked.stage is Stage.HELO else parse_extensions(reply.lines)
        self._flight.pipelining = self.extensions.pipelining
        policy = self._options.tls
        if self.secure or policy == "none":
            return self._authenticate()
        wanted = policy != "opportunistic" or not self._options.skip_starttls
        if wanted and self.extensions.starttls:
            self._flight.ask(b"STARTTLS\r\n", Expectation(Stage.STARTTLS))
            return []
        if policy != "opportunistic":
            raise HostFailure(Phase.TLS, f"the server does not offer STARTTLS, and the route wants tls: {policy}")
        self.tls_refusal = "STARTTLS is not offered" if wanted else "TLS has failed before"
        return self._authenticate()

    def begin_tls(self, _asked: Expectation, _reply: Reply) -> list[Event]:
        """STARTTLS was granted."""
        self.negotiating = True
        return [StartTLS()]

    def no_tls(self, _asked: Expectation, reply: Reply) -> list[Event]:
        """STARTTLS was refused: with "opportunistic" this goes on in the clear."""
        if self._options.tls != "opportunistic":
            raise refused(Phase.TLS, reply)
        self.tls_refusal = f"STARTTLS was refused: {reply.code} {reply.text}"
        return self._authenticate()

    def tls_established(self) -> None:
        """What was known before is forgotten: anyone may have said it (RFC 3207, 4.2)."""
        self.negotiating = False
        self.secure = True
        self.extensions = NONE
        if self._greeted:
            self._hello("EHLO")
        else:
            self._flight.expect_greeting()

    def _authenticate(self) -> list[Event]:
        credentials = self._options.credentials
        if credentials is None:
            return self._ready()
        if not self.secure and self._options.tls != "none":
            reason = self.tls_refusal or "there is no TLS"
            raise HostFailure(Phase.AUTH, f"the password is not sent in the clear with tls: opportunistic ({reason})")
        offered = self.extensions.auth
        if not offered:
            raise HostFailure(Phase.AUTH, "the server does not offer AUTH, and the route has a password")
        try:
            mechanism = choose(offered, credentials)
        except CredentialsError as error:
            raise HostFailure(Phase.AUTH, str(error)) from None
        if mechanism is None:
            known = ", ".join(mechanism.name for mechanism in MECHANISMS)
            seen = clean_text(" ".join(sorted(offered)))
            raise HostFailure(Phase.AUTH, f"the server offers AUTH {seen}; known here are {known}")
        self._exchange = Exchange(mechanism)
        self._flight.ask(self._exchange.command(), Expectation(Stage.AUTH))
        return []

    def challenged(self, _asked: Expectation, reply: Reply) -> list[Event]:
        """334: answer it, or cancel (RFC 4954, 4) if the mechanism has nothing more to say."""
        answer = self._exchange.answer(reply.lines[0]) if self._exchange else None
        if answer is None:
            self._flight.ask(b"*\r\n", Expectation(Stage.CANCEL))
        else:
            self._flight.ask(answer, Expectation(Stage.AUTH))
        return []

    def cancelled(self, _asked: Expectation, reply: Reply) -> list[Event]:
        """The server took note that we gave up."""
        name = self._exchange.name if self._exchange else ""
        text = f"the server asked for more than AUTH {name} has to say, and was answered *: {reply.text}"
        raise HostFailure(Phase.AUTH, text, code=reply.code, enhanced=reply.enhanced)

    def authenticated(self, _asked: Expectation, _reply: Reply) -> list[Event]:
        """The password was taken."""
        self._exchange = None
        return self._ready()

    def host_refused(self, asked: Expectation, reply: Reply) -> list[Event]:
        """The server does not serve us."""
        raise refused(PHASES[asked.stage], reply)

    def _ready(self) -> list[Event]:
        self.done = True
        return [Ready()]


def refused(phase: Phase, reply: Reply) -> HostFailure:
    """The failure that a reply means which refuses us, not a message."""
    return HostFailure(phase, reply.text, code=reply.code, enhanced=reply.enhanced)


HANDSHAKE_STEPS: Final[dict[Step, Callable[[Handshake, Expectation, Reply], list[Event]]]] = {
    Step.GREETED: Handshake.greeted,
    Step.LEARN: Handshake.learn,
    Step.FALL_BACK: Handshake.fall_back,
    Step.BEGIN_TLS: Handshake.begin_tls,
    Step.NO_TLS: Handshake.no_tls,
    Step.AUTHENTICATED: Handshake.authenticated,
    Step.CHALLENGED: Handshake.challenged,
    Step.CANCELLED: Handshake.cancelled,
    Step.HOST_REFUSED: Handshake.host_refused,
}
